//! Names of VIPs, by Minuteman's rules: `<label>.<framework>`, each made safe for DNS byte by byte.
//! The limits of DNS are here too, once for the whole crate.

/// Longest label, in octets (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// Longest name on the wire, in octets: every label with its length octet, and the root
/// (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;

/// Longest name as text, in octets without the final dot: the first length octet and the root have
/// no place in it.
pub const MAX_NAME_TEXT: usize = MAX_NAME - 2;

/// Each dotted part as a DNS label. Parts that are empty from the start vanish, those that become
/// empty stay.
pub fn fragment(text: &str) -> String {
    let parts: Vec<String> = text.split('.').filter(|part| !part.is_empty()).map(label).collect();
    parts.join(".")
}

/// Each dotted part as a DNS label, by the rule of mesos-dns for names of frameworks: parts of which nothing
/// is left vanish.
pub fn mesos_fragment(text: &str) -> String {
    let parts: Vec<String> = text.split('.').map(label).filter(|part| !part.is_empty()).collect();
    parts.join(".")
}

/// Returns true if a text can be a name in DNS as it is, whatever its octets.
pub fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_TEXT && text.split('.').all(|part| (1..=MAX_LABEL).contains(&part.len()))
}

/// One DNS label: lower-case letters and digits, with `-`, `_` and `.` as dashes inside; every other
/// byte is dropped. At 63 octets trailing dashes are cut and the room is filled up with letters and
/// digits only.
pub fn label(text: &str) -> String {
    let mut label = String::new();
    let mut full = false;
    for byte in text.bytes().map(|byte| byte.to_ascii_lowercase()) {
        // The peer's way to cut, byte by byte: another way would give other names, and so other addresses.
        if !full && label.len() >= MAX_LABEL {
            trim_dashes(&mut label);
            full = true;
        }
        if label.len() >= MAX_LABEL {
            break;
        }
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => label.push(char::from(byte)),
            b'-' | b'_' | b'.' if !full && !label.is_empty() => label.push('-'),
            _ => {}
        }
    }
    trim_dashes(&mut label);
    label
}

fn trim_dashes(label: &mut String) {
    label.truncate(label.trim_end_matches('-').len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::vip::vip_name;

    #[derive(Deserialize)]
    struct Vectors {
        label_normalisation: Vec<Normalisation>,
        vectors_no_collision: Vec<Named>,
    }

    #[derive(Deserialize)]
    struct Normalisation {
        input: String,
        label: String,
        domain_frag: String,
    }

    #[derive(Deserialize)]
    struct Named {
        label: String,
        framework: String,
        name: String,
    }

    #[test]
    fn every_vector_of_the_peer() {
        let vectors: Vectors =
            serde_json::from_str(include_str!("../../tests/fixtures/vip_allocation.json")).unwrap();
        for vector in vectors.label_normalisation {
            assert_eq!(label(&vector.input), vector.label, "{}", vector.input);
            assert_eq!(fragment(&vector.input), vector.domain_frag, "{}", vector.input);
        }
        for vector in vectors.vectors_no_collision {
            assert_eq!(vip_name(&vector.label, &vector.framework), vector.name);
        }
    }

    #[test]
    fn framework_fragments_have_no_empty_parts() {
        for (name, fragment) in
            [("a.-.b", "a.b"), ("dev.team/a", "dev.teama"), ("..a..", "a"), ("-.\u{65e5}", ""), ("", "")]
        {
            assert_eq!(mesos_fragment(name), fragment, "{name}");
        }
    }

    #[test]
    fn name_has_parts_of_1_to_63_octets() {
        assert!(is_name("web.dev") && is_name("Web dev") && is_name(&"x".repeat(63)));
        let long = ["x"; 127].join(".");
        assert!(is_name(&long) && !is_name(&format!("{long}.x")));
        assert!(!is_name("") && !is_name("a..b") && !is_name("a.") && !is_name(&"x".repeat(64)));
    }

    proptest! {
        #[test]
        fn labels_fit_dns(text in "\\PC{0,200}") {
            let label = label(&text);
            prop_assert!(label.len() <= MAX_LABEL);
            prop_assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!label.starts_with('-') && !label.ends_with('-'));
        }
    }
}
