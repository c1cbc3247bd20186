//! List of the tests, by subject.

mod cost;
mod drain;
mod eject;
mod object;
mod pins;
mod seen;
mod shared;
mod spread;
mod traffic;
mod weights;

/// Name and test.
pub type Test = (&'static str, fn());

pub const TESTS: &[Test] = &[
    (
        "object::the_committed_one_is_compiled_from_the_source",
        object::the_committed_one_is_compiled_from_the_source,
    ),
    ("traffic::a_connection", traffic::a_connection),
    ("traffic::connected_udp", traffic::connected_udp),
    ("traffic::connected_udp_that_names_its_vip_again", traffic::connected_udp_that_names_its_vip_again),
    (
        "traffic::an_udp_socket_that_is_refused_another_vip",
        traffic::an_udp_socket_that_is_refused_another_vip,
    ),
    ("traffic::unconnected_udp", traffic::unconnected_udp),
    ("traffic::unconnected_udp_keeps_its_server", traffic::unconnected_udp_keeps_its_server),
    (
        "traffic::unconnected_udp_whose_server_s_id_is_another_server_s",
        traffic::unconnected_udp_whose_server_s_id_is_another_server_s,
    ),
    ("traffic::unconnected_udp_that_has_rested", traffic::unconnected_udp_that_has_rested),
    ("traffic::unconnected_udp_with_very_many_vips", traffic::unconnected_udp_with_very_many_vips),
    (
        "traffic::unconnected_udp_that_asks_a_server_by_several_names",
        traffic::unconnected_udp_that_asks_a_server_by_several_names,
    ),
    ("traffic::udp_that_was_connected_and_is_no_longer", traffic::udp_that_was_connected_and_is_no_longer),
    ("traffic::ipv4_on_an_ipv6_socket", traffic::ipv4_on_an_ipv6_socket),
    ("traffic::multipath_tcp", traffic::multipath_tcp),
    ("traffic::tcp_without_waiting", traffic::tcp_without_waiting),
    ("traffic::an_udp_socket_that_connects_again", traffic::an_udp_socket_that_connects_again),
    ("traffic::refused_at_once", traffic::refused_at_once),
    ("traffic::a_server_that_refuses", traffic::a_server_that_refuses),
    ("traffic::other_addresses_are_left_alone", traffic::other_addresses_are_left_alone),
    ("traffic::other_cgroups_are_left_alone", traffic::other_cgroups_are_left_alone),
    ("traffic::of_an_exempt_process", traffic::of_an_exempt_process),
    ("traffic::of_a_process_that_was_exempt_and_killed", traffic::of_a_process_that_was_exempt_and_killed),
    ("spread::over_all_servers", spread::over_all_servers),
    ("spread::weight_0_gets_nothing", spread::weight_0_gets_nothing),
    ("spread::counts_go_up_and_back_to_0", spread::counts_go_up_and_back_to_0),
    ("spread::to_who_has_fewer", spread::to_who_has_fewer),
    ("spread::changes_under_constant_connects", spread::changes_under_constant_connects),
    ("spread::operations_that_are_refused", spread::operations_that_are_refused),
    ("spread::many_services_at_once", spread::many_services_at_once),
    ("cost::of_a_change_is_that_of_its_service", cost::of_a_change_is_that_of_its_service),
    ("seen::of_connects_by_what_became_of_them", seen::of_connects_by_what_became_of_them),
    ("seen::of_a_connect_that_took_long", seen::of_a_connect_that_took_long),
    ("seen::of_multipath_tcp_ends_with_the_connection", seen::of_multipath_tcp_ends_with_the_connection),
    ("seen::of_a_connection_that_was_reset", seen::of_a_connection_that_was_reset),
    ("seen::outlives_the_daemon", seen::outlives_the_daemon),
    ("seen::after_an_upgrade", seen::after_an_upgrade),
    (
        "shared::connected_udp_is_told_however_many_others_there_are",
        shared::connected_udp_is_told_however_many_others_there_are,
    ),
    (
        "shared::failures_are_remembered_however_many_others_there_are",
        shared::failures_are_remembered_however_many_others_there_are,
    ),
    ("weights::of_connections_that_are_closed_at_once", weights::of_connections_that_are_closed_at_once),
    ("weights::of_connections_that_are_held", weights::of_connections_that_are_held),
    ("weights::of_datagrams", weights::of_datagrams),
    ("weights::outlive_the_daemon", weights::outlive_the_daemon),
    ("weights::and_a_vip_without_ejection", weights::and_a_vip_without_ejection),
    ("eject::a_server_that_refuses", eject::a_server_that_refuses),
    ("eject::comes_back_by_itself", eject::comes_back_by_itself),
    ("eject::a_server_that_does_not_answer", eject::a_server_that_does_not_answer),
    ("eject::at_most_half_and_never_the_last", eject::at_most_half_and_never_the_last),
    ("eject::only_for_its_network_namespace", eject::only_for_its_network_namespace),
    ("eject::not_for_a_connect_that_was_given_up", eject::not_for_a_connect_that_was_given_up),
    ("eject::not_for_failures_that_are_not_in_a_row", eject::not_for_failures_that_are_not_in_a_row),
    ("eject::ends_by_the_word_of_mesos", eject::ends_by_the_word_of_mesos),
    ("eject::not_where_it_is_switched_off", eject::not_where_it_is_switched_off),
    ("pins::a_killed_daemon", pins::a_killed_daemon),
    ("pins::an_upgrade_in_place", pins::an_upgrade_in_place),
    ("pins::of_a_version_that_has_fewer_maps", pins::of_a_version_that_has_fewer_maps),
    ("pins::of_a_version_that_noted_datagrams_elsewhere", pins::of_a_version_that_noted_datagrams_elsewhere),
    ("pins::that_were_removed", pins::that_were_removed),
    ("pins::whose_file_system_goes_away", pins::whose_file_system_goes_away),
    ("pins::that_are_only_looked_at", pins::that_are_only_looked_at),
    ("pins::that_are_not_ours", pins::that_are_not_ours),
    ("pins::of_a_cgroup_that_was_removed", pins::of_a_cgroup_that_was_removed),
    ("pins::another_layout_goes_on_until_ours_is_filled", pins::another_layout_goes_on_until_ours_is_filled),
    ("pins::beside_those_of_others", pins::beside_those_of_others),
    ("pins::a_purge_leaves_nothing", pins::a_purge_leaves_nothing),
    ("pins::places_that_will_not_do", pins::places_that_will_not_do),
    ("pins::an_exclusive_program_of_somebody_else", pins::an_exclusive_program_of_somebody_else),
    ("drain::ends_the_right_connections", drain::ends_the_right_connections),
    ("drain::ends_connected_udp", drain::ends_connected_udp),
    (
        "drain::ends_connected_udp_with_the_rights_of_the_service",
        drain::ends_connected_udp_with_the_rights_of_the_service,
    ),
    (
        "drain::of_connected_udp_is_told_as_the_manual_says",
        drain::of_connected_udp_is_told_as_the_manual_says,
    ),
    (
        "drain::ends_connections_of_other_network_namespaces",
        drain::ends_connections_of_other_network_namespaces,
    ),
    (
        "drain::of_other_namespaces_is_told_where_it_is_not_allowed",
        drain::of_other_namespaces_is_told_where_it_is_not_allowed,
    ),
    ("drain::ends_later_what_it_could_not_end", drain::ends_later_what_it_could_not_end),
    ("drain::ends_what_an_earlier_run_left", drain::ends_what_an_earlier_run_left),
    ("drain::ends_a_connect_that_waits", drain::ends_a_connect_that_waits),
    ("drain::a_service_that_goes", drain::a_service_that_goes),
];
