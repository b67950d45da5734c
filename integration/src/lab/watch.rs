//! Looking at a lab: what crossed the core's links, and what came to or left the hosts, since a
//! moment.

use super::{Lab, SETTLES};
use crate::lab::nodes::Node;
use crate::lab::topology::{HA, HB};
use crate::observe::capture::{Capture, Captured, Mark};
use anyhow::{Context, Result};

/// Moments in the captures.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    core: Mark,
    ha: Mark,
    hb: Mark,
    hc: Mark,
}

/// The captures of a lab: all links of the core router and of the hosts.
#[derive(Debug)]
pub(super) struct Captures {
    pub(super) core: Capture,
    pub(super) ha: Option<Capture>,
    pub(super) hb: Option<Capture>,
    pub(super) hc: Option<Capture>,
}

impl Lab {
    /// This moment, to count from.
    ///
    /// # Errors
    /// When a capture cannot be read.
    pub fn now(&self) -> Result<Moment> {
        std::thread::sleep(SETTLES);
        let captures = self.captures()?;
        let of = |host: &Option<Capture>| host.as_ref().map_or(Ok(Mark::START), Capture::mark);
        Ok(Moment {
            core: captures.core.mark()?,
            ha: of(&captures.ha)?,
            hb: of(&captures.hb)?,
            hc: of(&captures.hc)?,
        })
    }

    /// Counts leaks from this moment on instead of from the first member's start.
    pub fn guarded_from(&mut self, moment: Moment) {
        self.guarded_since = Some(moment.core);
    }

    pub(super) fn captures(&self) -> Result<&Captures> {
        self.captures.as_ref().context("this lab captures nothing")
    }

    /// What crossed the core's links since a moment.
    ///
    /// # Errors
    /// When the capture cannot be read.
    pub fn core_since(&self, moment: Moment) -> Result<Vec<Captured>> {
        std::thread::sleep(SETTLES);
        self.captures()?.core.since(moment.core)
    }

    /// What came to or left a host since a moment.
    ///
    /// # Errors
    /// When the capture cannot be read.
    pub fn host_since(&self, host: Node, moment: Moment) -> Result<Vec<Captured>> {
        std::thread::sleep(SETTLES);
        let captures = self.captures()?;
        let (capture, mark) = match host {
            HA => (&captures.ha, moment.ha),
            HB => (&captures.hb, moment.hb),
            _ => (&captures.hc, moment.hc),
        };
        capture
            .as_ref()
            .with_context(|| format!("{} is not captured in this lab", host.0))?
            .since(mark)
    }
}
