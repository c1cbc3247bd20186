use proptest::prelude::*;

use super::super::tests::{server, shown};
use super::*;

/// As a Linux 6.1 kernel showed it.
const PROC_TEXT: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0B000001:0051 sh  persistent 75000 FFFFFF00
TCP  0B000001:0050 wlc  
  -> 0A000204:0050      Tunnel  1      0          0         
  -> 0A000203:0050      Route   0      0          0         
  -> 0A000202:1F90      Masq    3      0          0         
TCP  [fd01:000c:0000:0000:0000:0000:0000:0001]:0051 rr persistent 75000 40000000
SCTP  0B000001:8E3C rr  
  -> 0A000202:8E3C      Masq    1      0          0         
UDP  0B000001:0035 rr ops  
UDP  [fd01:000c:0000:0000:0000:0000:0000:0001]:0035 rr 
UDP  0B000001:14E9 rr  
  -> 0A000202:14E9      Masq    5      0          1         
TCP  [fd01:000c:0000:0000:0000:0000:0000:0001]:01BB rr 
  -> [fd01:000c:0000:0000:0000:0000:0000:0099]:20FB      Masq    2147483647 12         345       
FWM  00000007 wrr persistent 15000 80000000
FWM  00000007 wrr 
  -> 0A000202:0000      Route   1      0          0         
";

#[test]
fn parses_proc() {
    let with = |mut shown: ProcService, one_packet, persistent| {
        (shown.entry.one_packet, shown.entry.persistent) = (one_packet, persistent);
        shown
    };
    let mark = |persistent, servers: &[ProcServer]| {
        let entry = ProcEntry {
            identity: Identity::FirewallMark(7),
            scheduler: "wrr".to_owned(),
            one_packet: false,
            persistent,
        };
        ProcService { entry, servers: servers.to_vec() }
    };
    let inactive = Connections { active: 0, inactive: 1 };
    let both = Connections { active: 12, inactive: 345 };
    let masquerade = Forwarding::Masquerade;
    let expected = vec![
        with(shown("TCP", "11.0.0.1:81", "sh", &[]), false, true),
        shown(
            "TCP",
            "11.0.0.1:80",
            "wlc",
            &[
                server("10.0.2.4:80", Forwarding::Tunnel, 1),
                server("10.0.2.3:80", Forwarding::Route, 0),
                server("10.0.2.2:8080", masquerade, 3),
            ],
        ),
        with(shown("TCP", "[fd01:c::1]:81", "rr", &[]), false, true),
        shown("SCTP", "11.0.0.1:36412", "rr", &[server("10.0.2.2:36412", masquerade, 1)]),
        with(shown("UDP", "11.0.0.1:53", "rr", &[]), true, false),
        shown("UDP", "[fd01:c::1]:53", "rr", &[]),
        shown(
            "UDP",
            "11.0.0.1:5353",
            "rr",
            &[ProcServer { connections: inactive, ..server("10.0.2.2:5353", masquerade, 5) }],
        ),
        shown(
            "TCP",
            "[fd01:c::1]:443",
            "rr",
            &[ProcServer { connections: both, ..server("[fd01:c::99]:8443", masquerade, 2_147_483_647) }],
        ),
        mark(true, &[]),
        mark(false, &[server("10.0.2.2:0", Forwarding::Route, 1)]),
    ];
    assert_eq!(parse(PROC_TEXT).unwrap(), expected);
    let empty: String = PROC_TEXT.lines().take(3).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(parse(&empty), Some(vec![]));
}

#[test]
fn doubts_odd_proc() {
    let headings = PROC_TEXT.lines().take(3).collect::<Vec<_>>().join("\n");
    for line in [
        "TCP  0B000001:0050",
        "TCP  0B0001:0050 wlc",
        "TCP  0B000001:10050 wlc",
        "TCP  0B000001 wlc",
        "TCP  [fd01::1:0050 wlc",
        "TCP  0B000001:0050 wlc news",
        "TCP  0B000001:0050 wlc persistent 300",
        "FWM  xyz wlc",
        "  -> 0A000204:0050      Masq   1      0          0",
        "TCP  0B000001:0050 wlc\n  -> 0A000204:0050 Bypass 1 0 0",
        "TCP  0B000001:0050 wlc\n  -> 0A000204:0050 Masq -1 0 0",
        "TCP  0B000001:0050 wlc\n  -> 0A000204:0050 Masq 1 0",
        "TCP  0B000001:0050 wlc\n  -> 0A000204:0050 Masq 1 0 0 0",
        "",
    ] {
        assert_eq!(parse(&format!("{headings}\n{line}\n")), None, "{line}");
    }
    assert_eq!(parse(""), None);
}

proptest! {
    #[test]
    fn odd_text_does_not_panic(
        text in "\\PC{0,200}",
        at in 0..PROC_TEXT.len(),
        insert in "\\PC{0,3}",
    ) {
        let _ = parse(&text);
        let (start, end) = PROC_TEXT.split_at(at);
        let _ = parse(&format!("{start}{insert}{end}"));
    }
}
