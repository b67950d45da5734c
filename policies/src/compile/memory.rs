//! A change of keys alone changes states and the sets of SPIs. It is waited for, so the rest is not made again for it.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gdoi::group::{GroupId, TekProtection, TrafficSelector};
use ipnet::IpNet;
use xfrm::desired::{Desired, PlaceholderRoute};
use xfrm::model::{Policy, PolicyId};
use xfrm::preserve::Preservation;

use super::{Builder, Groups, build, inbound_spis, of_groups, unusable};
use crate::error::GroupUnusable;
use crate::group::{GroupInput, GroupOptions};
use crate::line::Line;
use crate::rollover;
use crate::zone::Zones;

/// A rekey goes through as many: one generation, and two or more that overlap.
const REMEMBERED: usize = 4;

/// Compiles as [`compile`](super::compile()) does, and remembers policies, routes and rules for the next time.
#[derive(Debug, Default)]
pub struct Compiler {
    remembered: VecDeque<(Vec<Shape>, Frame)>,
}

impl Compiler {
    /// Everything that should be in the kernel for these groups.
    ///
    /// # Errors
    /// As [`compile`](super::compile()).
    pub fn compile(&mut self, groups: &[GroupInput<'_>]) -> Result<Desired, GroupUnusable> {
        let groups = of_groups(groups)?;
        let shapes: Vec<Shape> = groups.iter().map(|(group, lines)| Shape::of(group, lines)).collect();
        if let Some((_, frame)) = self.remembered.iter().find(|(known, _)| *known == shapes) {
            return frame.with_keys(&groups);
        }
        let desired = build(groups)?;
        self.remembered.truncate(REMEMBERED - 1);
        self.remembered.push_front((shapes, Frame::of(&desired)));
        Ok(desired)
    }
}

/// A group without its SPIs, keys and life times: what the frame depends on.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    name: String,
    group: GroupId,
    slot: u8,
    zones: Zones,
    protected: Vec<IpNet>,
    exclude: Vec<TrafficSelector>,
    fail_open: Vec<TrafficSelector>,
    servers: Vec<SocketAddr>,
    pushes: Option<SocketAddr>,
    options: GroupOptions,
    lines: Vec<ShapeLine>,
}

#[derive(Debug, PartialEq, Eq)]
struct ShapeLine {
    /// Position of the first line with the same SPI.
    first: usize,
    selector: TrafficSelector,
    protection: TekProtection,
    has_keys: bool,
    receive: bool,
    send: bool,
}

impl Shape {
    fn of(input: &GroupInput<'_>, lines: &[Line<'_>]) -> Self {
        let GroupInput { name, group, slot, zones, protected, exclude, fail_open, servers, pushes, options, state: _ } =
            input;
        let line = |(position, line): (usize, &Line<'_>)| ShapeLine {
            first: lines.iter().position(|one| one.policy.spi == line.policy.spi).unwrap_or(position),
            selector: line.policy.selector,
            protection: line.policy.protection.clone(),
            has_keys: line.keys.is_some(),
            receive: line.receive,
            send: line.send,
        };
        Self {
            name: (*name).to_owned(),
            group: *group,
            slot: *slot,
            zones: zones.clone(),
            protected: protected.clone(),
            exclude: exclude.clone(),
            fail_open: fail_open.clone(),
            servers: servers.clone(),
            pushes: *pushes,
            options: *options,
            lines: lines.iter().enumerate().map(line).collect(),
        }
    }
}

/// A desired state without states.
#[derive(Debug)]
struct Frame {
    policies: BTreeMap<PolicyId, Policy>,
    preservation: Option<Preservation>,
    routes: BTreeSet<PlaceholderRoute>,
}

impl Frame {
    fn of(desired: &Desired) -> Self {
        let Desired { sas: _, policies, preservation, routes } = desired;
        Self { policies: policies.clone(), preservation: preservation.clone(), routes: routes.clone() }
    }

    fn with_keys(&self, groups: &Groups<'_>) -> Result<Desired, GroupUnusable> {
        let Self { policies, preservation, routes } = self;
        let mut builder = Builder::default();
        for (group, lines) in groups {
            let lanes = rollover::lanes(lines).map_err(|reason| unusable(group, reason))?;
            builder.sas(group, lines, &lanes).map_err(|reason| unusable(group, reason))?;
        }
        let mut preservation = preservation.clone();
        for (group, lines) in groups {
            let placeholder = &group.options.placeholder;
            if let Some(entry) = preservation.as_mut().and_then(|whole| whole.groups.get_mut(placeholder)) {
                let lanes = rollover::lanes(lines).map_err(|reason| unusable(group, reason))?;
                entry.inbound_spis = inbound_spis(&builder.desired.sas, &lanes, group.slot);
            }
        }
        let sas = builder.desired.sas;
        Ok(Desired { sas, policies: policies.clone(), preservation, routes: routes.clone() })
    }
}
