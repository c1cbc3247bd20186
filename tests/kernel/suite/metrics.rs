//! Metrics, against connections that were really made.

use anyhow::{Context, Result, ensure};

use super::{tests, web};
use crate::toolkit::await_some;
use crate::toolkit::helper::Outcome;
use crate::toolkit::lab::Lab;
use crate::toolkit::state::State;

tests!["metrics":
    new_connections_are_counted,
    ; ipvs:
    packets_and_bytes_are_counted,
    ; ebpf:
    ends_of_connects_are_counted,
];

/// Connections that are made.
const MADE: u64 = 7;

/// Returns the sum of the samples of the VIP `web` that have this text among their labels.
fn value(lab: &Lab, metric: &str, label: &str) -> Result<Option<u64>> {
    let text = lab.l4lbd(&["metrics"])?;
    let samples = text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    let samples =
        samples.filter(|sample| sample.contains("vip=\"web.marathon:80\"") && sample.contains(label));
    let mut sum = None;
    for sample in samples {
        let number: u64 = sample.rsplit_once(' ').context("a value")?.1.parse()?;
        *sum.get_or_insert(0) += number;
    }
    Ok(sum)
}

/// Waits for a value: the kernel adds its counters up every two seconds, and an audit reads others.
fn await_value(lab: &Lab, metric: &str, label: &str, is_right: impl Fn(u64) -> bool) -> Result<()> {
    let what = format!("{metric} with {label}");
    await_some(&what, || Ok(value(lab, metric, label)?.filter(|value| is_right(*value)).map(drop)))
}

/// A lab with the connections made, in which a daemon runs.
fn used(run: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = web::lab()?;
    let daemon = lab.start(&State::of([web::first(), web::second()]))?;
    let vip = daemon.socket_of("web", 80)?;
    ensure!(value(&lab, "l4lbd_vip_ready_backends", "tcp")? == Some(2), "{}", lab.l4lbd(&["metrics"])?);
    ensure!(value(&lab, "l4lbd_backend_weight", web::FIRST)? == Some(1), "{}", lab.l4lbd(&["metrics"])?);
    for _ in 0..MADE {
        ensure!(matches!(lab.agent.dial(vip)?, Outcome::Answered { .. }), "{vip} does not answer");
    }
    run(&lab)
}

fn new_connections_are_counted() -> Result<()> {
    used(|lab| await_value(lab, "l4lbd_vip_connections_total", "tcp", |made| made == MADE))
}

fn packets_and_bytes_are_counted() -> Result<()> {
    used(|lab| {
        for direction in ["direction=\"in\"", "direction=\"out\""] {
            // At least a part of the handshake and one more, in which text or an end is.
            await_value(lab, "l4lbd_vip_packets_total", direction, |packets| packets >= 2 * MADE)?;
            await_value(lab, "l4lbd_vip_bytes_total", direction, |bytes| bytes >= 2 * 40 * MADE)?;
            // Audits read these, one VIP after the other.
            await_value(lab, "l4lbd_backend_bytes_total", direction, |bytes| bytes >= 2 * 40 * MADE)?;
        }
        await_value(lab, "l4lbd_backend_connections_total", "tcp", |made| made == MADE)?;
        await_value(lab, "l4lbd_vip_backends_read_timestamp_seconds", "tcp", |at| at > 0)?;
        let story = lab.l4lbd(&["vip", "web.marathon:80"])?;
        ensure!(story.contains("BYTES OUT") && story.contains("counted 0s ago"), "{story}");
        let status: serde_json::Value = serde_json::from_str(&lab.l4lbd(&["status", "-o", "json"])?)?;
        let counted = &status["vips"][0]["backends"][0]["traffic"];
        ensure!(counted["connections"].as_u64() > Some(0) && counted["at"].is_string(), "{counted}");
        Ok(())
    })
}

fn ends_of_connects_are_counted() -> Result<()> {
    used(|lab| {
        await_value(lab, "l4lbd_vip_connects_total", "outcome=\"established\"", |made| made == MADE)?;
        await_value(lab, "l4lbd_backend_connects_total", "outcome=\"established\"", |made| made == MADE)?;
        ensure!(value(lab, "l4lbd_vip_connects_total", "outcome=\"refused\"")? == Some(0));
        Ok(())
    })
}
