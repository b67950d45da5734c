//! A change of keys alone changes states and the sets of SPIs. It is waited for, so the rest is not made again for it.

use core::net::SocketAddr;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

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
    remembered: VecDeque<(Vec<Shape<'static>>, Frame)>,
}

impl Compiler {
    /// Everything that should be in the kernel for these groups.
    ///
    /// # Errors
    /// As [`compile`](super::compile()).
    pub fn compile(&mut self, groups: &[GroupInput<'_>]) -> Result<Desired, GroupUnusable> {
        let groups = of_groups(groups)?;
        let shapes: Vec<Shape<'_>> = groups.iter().map(|(group, lines)| Shape::of(group, lines)).collect();
        if let Some((_, frame)) = self.remembered.iter().find(|(known, _)| *known == shapes) {
            return frame.with_keys(&groups);
        }
        let shapes = shapes.into_iter().map(Shape::into_owned).collect();
        let desired = build(groups)?;
        self.remembered.truncate(REMEMBERED - 1);
        self.remembered.push_front((shapes, Frame::of(&desired)));
        Ok(desired)
    }
}

/// A group without its SPIs, keys and life times: what the frame depends on.
#[derive(Debug, PartialEq, Eq)]
struct Shape<'a> {
    name: Cow<'a, str>,
    group: GroupId,
    slot: u8,
    zones: Cow<'a, Zones>,
    protected: Cow<'a, [IpNet]>,
    exclude: Cow<'a, [TrafficSelector]>,
    fail_open: Cow<'a, [TrafficSelector]>,
    servers: Cow<'a, [SocketAddr]>,
    pushes: Option<SocketAddr>,
    options: GroupOptions,
    lines: Vec<ShapeLine<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
struct ShapeLine<'a> {
    /// Position of the first line with the same SPI.
    first: usize,
    selector: TrafficSelector,
    protection: Cow<'a, TekProtection>,
    has_keys: bool,
    receive: bool,
    send: bool,
}

impl<'a> Shape<'a> {
    fn of(input: &'a GroupInput<'_>, lines: &[Line<'a>]) -> Self {
        let GroupInput { name, group, slot, zones, protected, exclude, fail_open, servers, pushes, options, state: _ } =
            input;
        let line = |(position, line): (usize, &Line<'a>)| ShapeLine {
            first: lines.iter().position(|one| one.policy.spi == line.policy.spi).unwrap_or(position),
            selector: line.policy.selector,
            protection: Cow::Borrowed(&line.policy.protection),
            has_keys: line.keys.is_some(),
            receive: line.receive,
            send: line.send,
        };
        Self {
            name: Cow::Borrowed(name),
            group: *group,
            slot: *slot,
            zones: Cow::Borrowed(zones),
            protected: protected.into(),
            exclude: exclude.into(),
            fail_open: fail_open.into(),
            servers: servers.into(),
            pushes: *pushes,
            options: *options,
            lines: lines.iter().enumerate().map(line).collect(),
        }
    }

    fn into_owned(self) -> Shape<'static> {
        Shape {
            name: owned(self.name),
            zones: owned(self.zones),
            protected: owned(self.protected),
            exclude: owned(self.exclude),
            fail_open: owned(self.fail_open),
            servers: owned(self.servers),
            lines: self.lines.into_iter().map(ShapeLine::into_owned).collect(),
            ..self
        }
    }
}

impl ShapeLine<'_> {
    fn into_owned(self) -> ShapeLine<'static> {
        ShapeLine { protection: owned(self.protection), ..self }
    }
}

fn owned<T: ToOwned + ?Sized>(value: Cow<'_, T>) -> Cow<'static, T> {
    Cow::Owned(value.into_owned())
}

/// A desired state without states.
#[derive(Debug)]
struct Frame {
    policies: Arc<BTreeMap<PolicyId, Policy>>,
    preservation: Option<Preservation>,
    routes: Arc<BTreeSet<PlaceholderRoute>>,
}

impl Frame {
    fn of(desired: &Desired) -> Self {
        let Desired { sas: _, policies, preservation, routes } = desired;
        Self { policies: policies.clone(), preservation: preservation.clone(), routes: routes.clone() }
    }

    fn with_keys(&self, groups: &Groups<'_>) -> Result<Desired, GroupUnusable> {
        let mut builder = Builder::default();
        let mut preservation = self.preservation.clone();
        for (group, lines) in groups {
            let lanes = rollover::lanes(lines).map_err(|reason| unusable(group, reason))?;
            builder.sas(group, lines, &lanes).map_err(|reason| unusable(group, reason))?;
            let placeholder = &group.options.placeholder;
            if let Some(entry) = preservation.as_mut().and_then(|whole| whole.groups.get_mut(placeholder)) {
                entry.inbound_spis = inbound_spis(&builder.desired.sas, &lanes, group.slot);
            }
        }
        let (policies, routes) = (Arc::clone(&self.policies), Arc::clone(&self.routes));
        Ok(Desired { sas: builder.desired.sas, policies, preservation, routes })
    }
}
