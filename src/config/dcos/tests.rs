use super::*;
use crate::config::Config;
use crate::dns::forward::Forward;
use crate::vip::alloc::AddressRange;

/// As an agent's file is, with the sections that have nothing to say to l4lbd.
const AGENT: &str = r#"
[{dcos_net, [{dist_port, 62501}, {is_master, false}]},
 {dcos_dns, [{udp_port, 53}, {tcp_port, 53}, {mesos_resolvers, []},
   {zookeeper_servers, [{"172.16.9.101", 2181}, {{172,16,9,102}, 2181}]},
   {upstream_resolvers, [{{8,8,8,8}, 53}, {{198,51,100,1}, 53}]}]},
 {dcos_l4lb, [{enable_lb, true}, {enable_ipv6, false},
   {min_named_ip, {11,0,0,0}}, {max_named_ip, {11,255,255,255}},
   {min_named_ip6, {16#fd01,16#c,16#0,16#0,16#0,16#0,16#0,16#0}},
   {max_named_ip6, {16#fd01,16#c,16#0,16#0,16#ffff,16#ffff,16#ffff,16#ffff}}]},
 {dcos_overlay, [{enable_overlay, false}]},
 {erldns, [{servers, []}, {pools, []}]}].
"#;

fn import(files: &Files) -> (Imported, Config) {
    let imported = Imported::read(files).unwrap();
    let text = imported.to_toml(Path::new("/etc/dcos"));
    let config =
        Config::parse(Path::new("imported"), &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    (imported, config)
}

fn terms(text: &str) -> Files {
    Files { terms: vec![("dcos-net.config".to_owned(), text.to_owned())], ..Files::default() }
}

#[test]
fn a_node_s_settings_become_a_configuration() {
    let (imported, config) = import(&terms(AGENT));
    insta::assert_snapshot!(imported.to_toml(Path::new("/opt/mesosphere/etc")), @r#"
    # Configuration of l4lbd, from that of dcos-net in /opt/mesosphere/etc.

    [source]
    # from dcos-net.config
    masters = ["zk://172.16.9.101:2181,172.16.9.102:2181/mesos"]

    [vips]
    # from dcos-net.config
    range4 = "11.0.0.0-11.255.255.255"
    # from dcos-net.config
    range6 = "fd01:c::-fd01:c::ffff:ffff:ffff:ffff"
    # from dcos-net.config
    ipv6 = false

    [dns]
    # from dcos-net.config
    listen = ["198.51.100.1:53", "198.51.100.2:53", "198.51.100.3:53"]
    # from dcos-net.config
    forward = ["8.8.8.8:53"]
    "#);
    assert_eq!(imported.remarks, [""; 0]);
    assert_eq!(config.vips.range4, AddressRange::DCOS_V4);
    assert!(!config.vips.ipv6);
}

#[test]
fn a_range_that_is_not_set_is_the_peer_s_and_not_ours() {
    let (_, config) = import(&terms("[{dcos_l4lb, []}]."));
    assert_eq!(config.vips.range4.to_string(), "11.0.0.0-11.255.255.254");
    assert_eq!(config.vips.range6, AddressRange::DCOS_V6);
}

#[test]
fn later_files_have_the_last_word_and_the_list_of_masters_counts_most() {
    let mut files = terms(AGENT);
    files.terms.push((
        "dcos-net.config.d/10-own".to_owned(),
        "[{dcos_l4lb, [{max_named_ip, {11,0,0,255}}]}].".to_owned(),
    ));
    files
        .environment
        .push(("dns_config".to_owned(), "MASTER_SOURCE=exhibitor\nRESOLVERS=10.0.0.2,10.0.0.3\n".to_owned()));
    files.master_list = Some(("master_list".to_owned(), r#"["10.0.0.5", "fd00::5"]"#.to_owned()));
    let (_, config) = import(&files);
    assert_eq!(config.vips.range4.to_string(), "11.0.0.0-11.0.0.255");
    let masters: Vec<String> = config.source.masters.iter().map(ToString::to_string).collect();
    assert_eq!(masters, ["http://10.0.0.5:5050", "http://[fd00::5]:5050"]);
    // Those of the file of terms, without the peer's own address.
    let Forward::Upstreams(servers) = &config.dns.forward else { panic!("{:?}", config.dns.forward) };
    assert_eq!(servers.len(), 1);
}

#[test]
fn the_environment_counts_where_terms_say_nothing() {
    let files = Files {
        environment: vec![(
            "dns_config".to_owned(),
            "# comment\nexport EXHIBITOR_ADDRESS=\"10.0.0.9\"\nRESOLVERS=10.0.0.2,10.0.0.3\nMESOS_STATE_SSL_ENABLED=true\n\
             SERVICE_AUTH_TOKEN=abc\n"
                .to_owned(),
        )],
        ..Files::default()
    };
    let (imported, config) = import(&files);
    assert_eq!(config.source.masters[0].to_string(), "https://10.0.0.9:5050");
    let Forward::Upstreams(servers) = &config.dns.forward else { panic!("{:?}", config.dns.forward) };
    assert_eq!(servers.len(), 2);
    let remarks = imported.remarks.join("\n");
    assert!(remarks.contains("source.tls_ca") && remarks.contains("source.token"), "{remarks}");
    assert!(!remarks.contains("abc") && !imported.to_toml(Path::new("/")).contains("abc"), "{remarks}");
}

#[test]
fn what_is_lost_is_said() {
    let (imported, _) = import(&terms(
        r#"[{minuteman, [{enable_networking, false}]}, {dcos_net, [is_master]}, {dcos_overlay, [{enable_overlay, true}]},
            {dcos_dns, [{forward_zones, #{"corp" => [{{10,0,0,1}, 53}]}}, {mesos_resolvers, [{{127,0,0,1}, 61053}]},
                        {zones, #{"component.thisdcos.directory" => [#{type => cname}]}}]}]."#,
    ));
    insta::assert_snapshot!(imported.remarks.join("\n"), @r"
    No file names a master. The default of source.masters, leader.mesos, resolves on this node only while dcos-net or a mesos-dns answers: set it.
    dcos-net does not balance on this node (enable_networking in dcos-net.config), and l4lbd does: do not start it here if that is to stay.
    No file names upstream resolvers; dcos-net asks 8.8.8.8 and 4.2.2.1 then. l4lbd refuses names of other zones unless dns.forward names servers.
    forward_zones in dcos-net.config: l4lbd has no servers for single zones: such names go to those in dns.forward.
    zones in dcos-net.config: l4lbd has no static names: these are not served.
    mesos_resolvers in dcos-net.config: l4lbd has the names of the zone mesos itself; dns.mesos can name 127.0.0.1:61053 instead.
    This node is a master (dcos-net.config), where dcos-net answers DNS on all addresses: add them to dns.listen and their clients to dns.clients if others ask it.
    Virtual networks are on (enable_overlay in dcos-net.config). l4lbd does not make them: containers in them lose their network when dcos-net no longer keeps it.
    ");
}

#[test]
fn files_that_are_not_dcos_net_s_are_refused_by_name() {
    let error = |files: &Files| Imported::read(files).unwrap_err().to_string();
    assert_eq!(error(&terms("[{dcos_l4lb, [}].")), "dcos-net.config: line 1: a term cannot begin with '}'");
    assert!(error(&terms("[1].")).starts_with("dcos-net.config: not a list of applications"));
    let files =
        Files { master_list: Some(("master_list".to_owned(), "10.0.0.1".to_owned())), ..Files::default() };
    assert!(error(&files).starts_with("master_list: not a JSON list"));
}
