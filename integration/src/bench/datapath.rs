//! The datapath's price: plain forwarding, a classic unicast ESP tunnel and the group path,
//! alternating in one boot.

use crate::lab::Lab;
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, G2, HA, HB};
use crate::traffic::value;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;

/// UDP payloads that are measured, in octets.
const SIZES: [usize; 4] = [64, 256, 512, 1400];
/// The group path should not cost more than a twentieth of a classic tunnel's throughput.
const BAR: f64 = 0.95;

/// One way from the first host to the second.
struct Route {
    name: &'static str,
    target: &'static str,
}

const ROUTES: [Route; 3] = [
    Route { name: "plain", target: "192.168.102.10" },
    Route { name: "classic", target: "192.168.2.10" },
    Route { name: "group", target: "172.16.2.10" },
];

/// Measures and prints a table; true when the median of group/classic reaches the bar.
///
/// # Errors
/// When the lab cannot be built or a measurement gives nothing.
pub fn run(binaries: &Path, rounds: u32, seconds: u32) -> Result<bool> {
    let mut lab = Lab::build_unwatched(Plan::default(), binaries)?;
    lab.start_server(0)?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    lab.wait_registered(Duration::from_secs(120))?;
    other_routes()?;
    classic_tunnel(&lab)?;
    println!(
        "aes-256-cbc with hmac-sha2-256-128 on both ESP paths; {rounds} rounds of {seconds} s each; Mbit/s received"
    );
    let kinds: Vec<Option<usize>> = std::iter::once(None).chain(SIZES.map(Some)).collect();
    let mut ratios = Vec::new();
    println!(
        "{:<10} {:>8} {:>8} {:>8} {:>14} {:>14}",
        "traffic", "plain", "classic", "group", "group/classic", "group/plain"
    );
    for kind in kinds {
        let mut samples: [Vec<f64>; 3] = Default::default();
        for round in 0..rounds as usize {
            for step in 0..ROUTES.len() {
                // Another one begins each time, so that no path always follows the same one.
                let position = (round + step) % ROUTES.len();
                let route = ROUTES.get(position).context("no such route")?;
                let rate = measure(&lab, route, kind, seconds).with_context(|| route.name)?;
                samples.get_mut(position).context("no such route")?.push(rate);
            }
        }
        let [plain, classic, group] = &samples;
        let (against_classic, against_plain) = (ratio(group, classic), ratio(group, plain));
        let name = kind.map_or("TCP".to_owned(), |size| format!("UDP {size}"));
        println!(
            "{name:<10} {:>8.1} {:>8.1} {:>8.1} {against_classic:>14.2} {against_plain:>14.2}",
            median(plain),
            median(classic),
            median(group)
        );
        ratios.push(against_classic);
    }
    let overall = median(&ratios);
    let met = overall >= BAR;
    println!(
        "group/classic, median of all: {overall:.2} (bar {BAR}: {})",
        if met { "met" } else { "missed" }
    );
    crate::lab::topology::tear_down();
    Ok(met)
}

/// Prefixes the group does not protect, on the same hosts.
fn other_routes() -> Result<()> {
    for (host, member, number, other) in [(HA, G1, 1, 2), (HB, G2, 2, 1)] {
        for net in [format!("192.168.{number}"), format!("192.168.10{number}")] {
            let far = net.strip_suffix(&number.to_string()).context("number")?;
            host.batch(&format!(
                "addr add {net}.10/24 dev eth0\nroute add {far}{other}.0/24 via {net}.1 src {net}.10\n"
            ))?;
            member.batch(&format!("addr add {net}.1/24 dev lan\n"))?;
            crate::lab::topology::R.ip(&format!("route add {net}.0/24 via 10.0.{number}.1"))?;
        }
    }
    Ok(())
}

/// An ordinary site-to-site tunnel with the group's cipher and a key of its own.
fn classic_tunnel(lab: &Lab) -> Result<()> {
    let model = lab.outbound(G1)?;
    let (cipher, key) = model
        .first()
        .and_then(|state| state.encryption.clone())
        .context("the group has no CBC cipher")?;
    let (hash, _, bits) = model
        .first()
        .and_then(|state| state.integrity.clone())
        .context("the group has no integrity")?;
    let enc: String = (0..key.len()).map(|number| format!("{:02x}", number + 1)).collect();
    let auth: String = (0..32).map(|number| format!("{:02x}", number + 3)).collect();
    let algorithms = format!("enc {cipher} 0x{enc} auth-trunc {hash} 0x{auth} {bits}");
    for (node, own, peer, inside, outside) in [
        (G1, "10.0.1.1", "10.0.2.1", "192.168.1.0/24", "192.168.2.0/24"),
        (G2, "10.0.2.1", "10.0.1.1", "192.168.2.0/24", "192.168.1.0/24"),
    ] {
        let spi = |address: &str| if address == "10.0.1.1" { "0x7001" } else { "0x7002" };
        for (source, destination) in [(own, peer), (peer, own)] {
            let id = format!(
                "src {source} dst {destination} proto esp spi {} reqid 77 mode tunnel",
                spi(destination)
            );
            node.ip(&format!("xfrm state add {id} flag nopmtudisc {algorithms}"))?;
        }
        let template = |from: &str, to: &str| {
            format!("tmpl src {from} dst {to} proto esp reqid 77 mode tunnel")
        };
        node.ip(&format!(
            "xfrm policy add src {inside} dst {outside} dir out {}",
            template(own, peer)
        ))?;
        for direction in ["in", "fwd"] {
            node.ip(&format!(
                "xfrm policy add src {outside} dst {inside} dir {direction} {}",
                template(peer, own)
            ))?;
        }
    }
    Ok(())
}

/// Mbit/s of payload that arrive.
fn measure(lab: &Lab, route: &Route, size: Option<usize>, seconds: u32) -> Result<f64> {
    let target = route.target;
    let (sink, flow) = match size {
        None => (
            "tcp-sink --port 5002".to_owned(),
            format!("tcp-flow --to {target}:5002 --seconds {seconds}"),
        ),
        Some(size) => (
            "sink --port 5000".to_owned(),
            format!("flow --to {target}:5000 --seconds {seconds} --size {size}"),
        ),
    };
    let sink = lab.start_sink(HB, &sink)?;
    let sent = lab.traffic(HA, &flow)?;
    let received = sink.output(Duration::from_secs(60))?;
    let octets = value(&received, "octets").context("the sink did not say how much arrived")?;
    let line = if size.is_some() { &received } else { &sent };
    let milliseconds = value(line, "milliseconds").context("no time")?.max(1);
    Ok(octets as f64 * 8.0 / 1000.0 / milliseconds as f64)
}

/// Median of the rounds' own ratios: what disturbs one round disturbs both its paths.
fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&of.iter().zip(to).map(|(of, to)| of / to.max(f64::MIN_POSITIVE)).collect::<Vec<_>>())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(0.0);
    if sorted.len() % 2 == 1 {
        upper
    } else {
        (upper + sorted.get(middle.wrapping_sub(1)).copied().unwrap_or(0.0)) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_ratio_compares_within_a_round() {
        assert_eq!(ratio(&[10.0, 1.0, 8.0], &[10.0, 1.0, 16.0]), 1.0);
    }
}
