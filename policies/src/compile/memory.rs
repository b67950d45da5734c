//! A change of keys alone changes states and the sets of SPIs. It is waited for, so the rest is not
//! made again for it.

use core::net::SocketAddr;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use gdoi::group::{GroupId, TekProtection, TrafficSelector};
use ipnet::IpNet;
use xfrm::desired::{Desired, PlaceholderRoute};
use xfrm::model::{Policy, PolicyId};
use xfrm::nft::Preservation;

use super::{Builder, build, in_order, inbound_spis, of_groups, unusable};
use crate::error::{GroupUnusable, Unusable};
use crate::group::{GroupInput, GroupOptions};
use crate::line::{self, Line, Part};
use crate::precedence::Lane;
use crate::protection::Suite;
use crate::rollover;
use crate::zone::Zones;

/// A rekey goes through as many: one generation, and two or more that overlap.
const REMEMBERED: usize = 4;

/// Compiles as [`compile`](super::compile()) does, and remembers policies, routes and rules for the
/// next time.
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
        let unchecked: Vec<_> =
            in_order(groups).into_iter().map(|group| (group, line::parts(group))).collect();
        let shapes: Vec<Shape<'_>> =
            unchecked.iter().map(|(group, parts)| Shape::of(group, parts)).collect();
        if let Some((_, frame)) = self.remembered.iter().find(|(known, _)| *known == shapes) {
            return frame.with_keys(&unchecked);
        }
        let groups = of_groups(groups)?;
        let lines: Result<_, Unusable> = groups.iter().map(|(_, lines)| checked(lines)).collect();
        let desired = build(groups)?;
        if let Ok(lines) = lines {
            let shapes = shapes.into_iter().map(Shape::into_owned).collect();
            self.remembered.truncate(REMEMBERED - 1);
            self.remembered.push_front((shapes, Frame::of(&desired, lines)));
        }
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
    fn of(input: &'a GroupInput<'_>, lines: &[Part<'a>]) -> Self {
        let GroupInput {
            name,
            group,
            slot,
            zones,
            protected,
            exclude,
            fail_open,
            servers,
            pushes,
            options,
            state: _,
        } = input;
        let line = |(position, line): (usize, &Part<'a>)| ShapeLine {
            first: lines
                .iter()
                .position(|one| one.policy.spi == line.policy.spi)
                .unwrap_or(position),
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

/// What checking a line has found that its keys do not change.
#[derive(Clone, Copy, Debug)]
struct Checked {
    suite: Suite,
    lane: Lane,
}

fn checked(lines: &[Line<'_>]) -> Result<Vec<Checked>, Unusable> {
    let lanes = rollover::lanes(lines)?;
    let lane = |line: &Line<'_>| lanes.get(&line.policy.spi).copied().unwrap_or_default();
    Ok(lines.iter().map(|line| Checked { suite: line.suite, lane: lane(line) }).collect())
}

/// A desired state without states.
#[derive(Debug)]
struct Frame {
    policies: Arc<BTreeMap<PolicyId, Policy>>,
    preservation: Option<Preservation>,
    routes: Arc<BTreeSet<PlaceholderRoute>>,
    exempt: BTreeSet<String>,
    /// By group and line.
    lines: Vec<Vec<Checked>>,
}

impl Frame {
    fn of(desired: &Desired, lines: Vec<Vec<Checked>>) -> Self {
        let Desired { sas: _, policies, preservation, routes, exempt } = desired;
        Self {
            policies: policies.clone(),
            preservation: preservation.clone(),
            routes: routes.clone(),
            exempt: exempt.clone(),
            lines,
        }
    }

    fn with_keys(
        &self,
        groups: &[(&GroupInput<'_>, Vec<Part<'_>>)],
    ) -> Result<Desired, GroupUnusable> {
        let mut builder = Builder::default();
        let mut preservation = self.preservation.clone();
        for ((group, parts), checked) in groups.iter().zip(&self.lines) {
            let mut lines = Vec::with_capacity(parts.len());
            for (part, checked) in parts.iter().zip(checked) {
                // States take nothing from the selectors of a line.
                lines.push(part.line(checked.suite, Vec::new(), 0, group.options.mode));
            }
            let lanes = lines
                .iter()
                .zip(checked)
                .map(|(line, checked)| (line.policy.spi, checked.lane))
                .collect();
            builder.sas(group, &lines, &lanes).map_err(|reason| unusable(group, reason))?;
            let placeholder = &group.options.placeholder;
            if let Some(entry) =
                preservation.as_mut().and_then(|whole| whole.groups.get_mut(placeholder))
            {
                entry.inbound_spis = inbound_spis(&builder.desired.sas, &lanes, group.slot);
            }
        }
        let (policies, routes) = (Arc::clone(&self.policies), Arc::clone(&self.routes));
        let exempt = self.exempt.clone();
        Ok(Desired { sas: builder.desired.sas, policies, preservation, routes, exempt })
    }
}
