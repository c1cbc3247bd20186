//! The generated parts of pages: commands and options from clap, keys from the configuration.
//!
//! A page marks them by comments, `.\" generated: NAME` and `.\" generated: end`. What is between is
//! replaced, everything else is written by hand.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;
use l4lbd::cli::Cli;
use l4lbd::config::reference::keys;
use l4lbd::exporter::families;

const BEGIN: &str = ".\\\" generated: ";
const END: &str = ".\\\" generated: end";

/// Bytes of the longest line of text that mandoc's style allows, without a final full stop.
const LONGEST_LINE: usize = 79;

/// Bytes of a key and its default that fit into a line of a narrow terminal.
const LONGEST_TAG: usize = 68;

/// Returns a page with its generated parts as they should be.
///
/// # Errors
/// When a part is not known or has no end.
pub fn fill(page: &str) -> Result<String, String> {
    let mut filled = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        filled.push_str(line);
        filled.push('\n');
        let Some(name) = line.strip_prefix(BEGIN) else { continue };
        filled.push_str(&match name {
            "commands" => commands(),
            "options" => options(),
            "keys" => keys_by_section(),
            "metrics" => metrics(),
            "at-once" => at_once(),
            _ => return Err(format!("nothing generates the part \"{name}\"")),
        });
        if !lines.by_ref().any(|line| line == END) {
            return Err(format!("the part \"{name}\" has no line {END}"));
        }
        filled.push_str(END);
        filled.push('\n');
    }
    Ok(filled)
}

/// Every command with its usage, its description and its options.
fn commands() -> String {
    let mut program = Cli::command().mut_subcommands(|command| command.disable_help_flag(true));
    program.build();
    let mut text = String::new();
    for command in program.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        let usage = command.render_usage().to_string();
        text += &format!(".SS {}\n", escaped(command.get_name()));
        text += &format!("\\fB{}\\fR\n.PP\n", escaped(usage.trim_start_matches("Usage: ")));
        let man = Man::new(command.clone());
        text += &part(|out| man.render_description_section(out));
        text += &part(|out| man.render_options_section(out));
    }
    text
}

/// The options that need no command.
fn options() -> String {
    part(|out| Man::new(Cli::command()).render_options_section(out))
}

fn keys_by_section() -> String {
    let mut text = String::new();
    let mut last = None;
    for key in keys() {
        if last.as_ref() != Some(&key.section) {
            text += &format!(".SS [{}]\n", escaped(&key.section));
            last = Some(key.section.clone());
        }
        let name = escaped(&key.name);
        let help = escaped(&key.help);
        text += &match key.default.map(|default| escaped(&default)) {
            None => format!(".TP\n.BR {name} \" (no default)\"\n{}", paragraph(&help)),
            Some(default) if name.len() + default.len() <= LONGEST_TAG => {
                let quoted = default.replace('"', "\"\"");
                format!(".TP\n.BR {name} \" = {quoted}\"\n{}", paragraph(&help))
            }
            Some(default) => {
                format!(".TP\n.B {name}\n{}{}", paragraph(&help), paragraph(&format!("Default: {default}")))
            }
        };
    }
    text
}

/// The keys that a reload takes over, as the end of a sentence.
fn at_once() -> String {
    let keys = l4lbd::config::reload::at_once();
    let last = keys.len() - 1;
    let line = |(index, key): (usize, &String)| match index {
        _ if index == last => format!("and\n.BR {key} .\n"),
        _ if index + 1 == last => format!(".B {key}\n"),
        _ => format!(".BR {key} ,\n"),
    };
    keys.iter().enumerate().map(line).collect()
}

/// Every metric with its type, its labels and its meaning.
fn metrics() -> String {
    let mut text = String::new();
    let mut last = "";
    for family in families().unwrap() {
        let group = group(family.name);
        if group != last {
            text += &format!(".SS {group}\n");
            last = group;
        }
        let labels = match family.labels {
            [] => String::new(),
            labels => format!("{{{}}} ", labels.join(", ")),
        };
        let tag = format!("{} \" ({})\"", escaped(&family.exposed()), family.kind);
        let help = escaped(&format!("{labels}{}", family.help));
        text += &format!(".TP\n.BR {tag}\n{}", paragraph(&help));
    }
    text
}

/// Returns the heading under which a metric is listed.
fn group(name: &str) -> &'static str {
    let starts = [
        ("l4lbd_source_duration", "Sources"),
        ("l4lbd_source_failures", "Sources"),
        ("l4lbd_source_re", "Sources"),
        ("l4lbd_source_good", "Sources"),
        ("l4lbd_source_interval", "Sources"),
        ("l4lbd_vip_", "Each VIP"),
        ("l4lbd_backend_", "Each backend"),
        ("l4lbd_detailed", "All VIPs together"),
        ("l4lbd_connect", "All VIPs together"),
        ("l4lbd_syn", "All VIPs together"),
        ("l4lbd_vips", "All VIPs together"),
        ("l4lbd_leases", "All VIPs together"),
        ("l4lbd_kernel_read", "All VIPs together"),
        ("l4lbd_figures", "All VIPs together"),
        ("l4lbd_pass_duration", "Passes"),
        ("l4lbd_pass_operation", "Passes"),
        ("l4lbd_pass_errors", "Passes"),
        ("l4lbd_document", "Passes"),
        ("l4lbd_drift", "Passes"),
        ("l4lbd_plan", "Passes"),
        ("l4lbd_dns_questions", "DNS"),
        ("l4lbd_dns_ignored", "DNS"),
        ("l4lbd_dns_answer", "DNS"),
        ("l4lbd_dns_forward", "DNS"),
        ("process_", "The process"),
        ("l4lbd_scrape", "The process"),
    ];
    let found = starts.iter().find(|(start, _)| name.starts_with(start));
    found.map_or(if name == "l4lbd_source" { "Sources" } else { "The status" }, |(_, group)| group)
}

/// A text that means the same to roff.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

/// A part of a page by clap_mangen, without its heading, and in the form that [`paragraph`] has.
fn part(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
    let mut written = Vec::new();
    render(&mut written).unwrap();
    let mut part = String::new();
    // The register that stands for an apostrophe would have to be defined first.
    for line in String::from_utf8(written).unwrap().replace("\\*(Aq", "\\(aq").lines() {
        let definition = line.starts_with(".ie ") || line.starts_with(".el ") || line.starts_with(".SH ");
        let is_tag = part.ends_with(".TP\n");
        // Two of them are how clap_mangen makes a blank line, which mandoc takes for a mistake.
        let again = line == ".br" && part.ends_with(".br\n");
        if definition || again || line.trim().is_empty() {
            continue;
        }
        if line.starts_with('.') || is_tag {
            part += line.trim_end();
            part.push('\n');
        } else {
            part += &paragraph(line);
        }
    }
    part
}

/// Lines that mandoc takes for short, with a full stop at the end.
fn paragraph(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= LONGEST_LINE => {
                line.push(' ');
                line.push_str(word);
            }
            // A dot or an apostrophe would start a macro.
            _ if word.starts_with(['.', '\'']) => lines.push(format!("\\&{word}")),
            _ => lines.push(word.to_owned()),
        }
    }
    // What sets the typeface back is no part of the text.
    let bare = text.trim_end().trim_end_matches("\\fR");
    let end = if bare.ends_with(['.', '!', ':']) { "\n" } else { ".\n" };
    lines.join("\n") + end
}
