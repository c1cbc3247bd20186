//! Tables of a plan of some VIPs, with counters as a plane would have them.

use super::*;
use crate::dataplane::Connections;
use crate::status::document::tests::{Planned, names};

fn traffic(connections: u64, bytes: u64) -> Traffic {
    Traffic { connections, in_bytes: bytes, out_bytes: 2 * bytes, ..Traffic::default() }
}

/// Counters of all VIPs of the plan, by their place in it.
fn reading(planned: &Planned, counted: impl Fn(u64) -> Traffic) -> Arc<CounterReading> {
    let services = planned.view().plan.desired.services.clone();
    let traffic = services.keys().zip(0..).map(|(key, place)| (*key, counted(place)));
    Arc::new(CounterReading::Traffic(Arc::new(traffic.collect())))
}

fn table(planned: &Planned, query: &TopQuery, rates: &Rates) -> TopTable {
    let view = planned.view();
    let leaders = view.leaders(query, rates);
    view.top(query, rates, &leaders, (&BTreeSet::new(), None))
}

fn query(sort: SortKey) -> TopQuery {
    TopQuery { sort, rows: 3, ..TopQuery::default() }
}

/// Twenty VIPs, of which a later one has more new connections, and an earlier one more bytes.
fn rated(planned: &Planned) -> Rates {
    let before = reading(planned, |_| traffic(100, 1_000));
    let now = reading(planned, |place| traffic(100 + 2 * place, 1_000 + 10 * (20 - place)));
    Rates::between(Some((&before, 2.0)), now)
}

#[test]
fn leaders_are_as_many_as_asked_for_and_in_the_order_asked_for() {
    let planned = Planned::new(&names(20));
    let rates = rated(&planned);
    let keys: Vec<ServiceKey> = planned.view().plan.desired.services.keys().copied().collect();
    let shown = |query: &TopQuery| -> Vec<ServiceKey> {
        table(&planned, query, &rates).rows.iter().map(TopRow::key).collect()
    };
    assert_eq!(shown(&query(SortKey::Rate)), [keys[19], keys[18], keys[17]]);
    assert_eq!(shown(&query(SortKey::Bytes)), [keys[0], keys[1], keys[2]]);
    let reversed = TopQuery { is_reversed: true, ..query(SortKey::Rate) };
    assert_eq!(shown(&reversed), [keys[0], keys[1], keys[2]]);
    let by_name = table(&planned, &query(SortKey::Name), &rates);
    let shown: Vec<String> = by_name.rows.iter().map(TopRow::label).collect();
    assert!(shown.is_sorted() && shown.len() == 3, "{shown:?}");
    // What the plane does not count leaves the order of the names.
    assert_eq!(table(&planned, &query(SortKey::Failures), &rates).rows, by_name.rows);
    let last = TopQuery { is_reversed: true, ..query(SortKey::Name) };
    assert!(table(&planned, &last, &rates).rows[0].label() > shown[2]);
}

#[test]
fn rates_are_by_the_second_and_sums_are_over_all_that_match() {
    let planned = Planned::new(&names(20));
    let all = table(&planned, &query(SortKey::Rate), &rated(&planned));
    assert_eq!((all.rows.len(), all.matching), (3, 20));
    assert_eq!((all.rows[0].rates.connections, all.rows[0].totals.connections), (Some(19.0), Some(138)));
    assert_eq!((all.rows[0].rates.bytes(), all.rows[0].rates.failures), (Some(15.0), None));
    assert_eq!(all.rates.connections, Some(190.0));
    assert_eq!(all.rates.failures, None, "which is not 0");
    // Nobody knows how fast after one reading.
    let first = Rates::between(None, reading(&planned, |_| traffic(7, 7)));
    let first = table(&planned, &query(SortKey::Rate), &first);
    assert_eq!((first.rates, first.rows[0].totals.connections), (VipCounts::default(), Some(7)));
}

#[test]
fn a_counter_that_begins_anew_has_no_rate() {
    let now = VipCounts::from(traffic(3, 5));
    let rates = now.rates_since(traffic(10, 5).into(), 1.0);
    assert_eq!((rates.connections, rates.in_bytes), (None, Some(0.0)));
    assert_eq!(now.rates_since(now, 0.0), VipCounts::default());
}

#[test]
fn connects_are_counted_for_tcp_alone_and_bytes_not_at_all() {
    let planned = Planned::new(&["/web:80".to_owned(), "/idle:80".to_owned()]);
    let services = planned.view().plan.desired.services.clone();
    let web = *services.keys().next().unwrap();
    let connects = |begun| Connects { begun, refused: 2, timed_out: 1, ..Connects::default() };
    let before = CounterReading::Connects(BTreeMap::new());
    let now = CounterReading::Connects([(web, connects(10))].into());
    let udp = ServiceKey { protocol: Protocol::Udp, ..web };
    assert_eq!(now.of(&udp), VipCounts::default());
    let shown = table(&planned, &query(SortKey::Failures), &Rates::between(Some((&before, 1.0)), now.into()));
    let figures = |row: &TopRow| (row.rates.connections, row.rates.failures, row.rates.bytes());
    assert_eq!(figures(&shown.rows[0]), (Some(10.0), Some(3.0), None));
    assert_eq!(figures(&shown.rows[1]), (Some(0.0), Some(0.0), None));
}

#[test]
fn a_filter_is_a_part_of_a_name_or_address_or_a_pattern() {
    let labels = ["/web:80", "/website:81", "/api:80", "10.9.8.7:80"].map(str::to_owned);
    let planned = Planned::new(&labels);
    let found = |filter: &str| -> Vec<String> {
        let query =
            TopQuery { filter: filter.to_owned(), rows: 10, sort: SortKey::Name, ..TopQuery::default() };
        table(&planned, &query, &Rates::default()).rows.iter().map(TopRow::label).collect()
    };
    assert_eq!(found("WEB"), ["web.marathon:80", "website.marathon:81"]);
    assert_eq!(found("web*:80"), ["web.marathon:80"]);
    assert_eq!(found("9.8.7"), ["10.9.8.7:80"]);
    assert_eq!(found(":81"), ["website.marathon:81"]);
    assert_eq!(found("nothing"), Vec::<String>::new());
    assert_eq!(found("").len(), 4);
    assert!(found(&"ü".repeat(1_000)).is_empty());
}

#[test]
fn the_chosen_vip_comes_with_its_backends_wherever_it_ranks() {
    let mut planned = Planned::new(&names(20));
    planned.connect();
    let key = *planned.view().plan.desired.services.keys().next().unwrap();
    let wanted = TopQuery { chosen: Some(key), rows: 1, ..query(SortKey::Rate) };
    let shown = table(&planned, &wanted, &rated(&planned));
    let chosen = shown.chosen.unwrap();
    assert_eq!((chosen.address, chosen.backends.len(), shown.backends), (key.address, 1, 1));
    assert_eq!(chosen.backends[0].connections, Some(Connections { active: 2, inactive: 1 }));
    assert_eq!((shown.rows.len(), shown.open), (1, 20));
    let servers = planned.view().counted_anew(&wanted, &planned.view().leaders(&wanted, &Rates::default()));
    assert!(servers.iter().any(|(service, _)| *service == key));
    // One that has gone is not there.
    let gone = ServiceKey { port: 1, ..key };
    assert_eq!(table(&planned, &TopQuery { chosen: Some(gone), ..wanted }, &Rates::default()).chosen, None);
}

#[test]
fn a_service_is_read_as_it_is_written() {
    for text in ["tcp 11.0.0.1:80", "udp [fd01::1]:53"] {
        assert_eq!(service_key(text).unwrap().to_string(), text);
    }
    for wrong in ["", "tcp", "sctp 11.0.0.1:80", "tcp 11.0.0.1"] {
        assert_eq!(service_key(wrong), None, "{wrong}");
    }
    assert_eq!("bytes".parse(), Ok(SortKey::Bytes));
    assert!("size".parse::<SortKey>().unwrap_err().contains("name, connections, rate, bytes, failures"));
}
