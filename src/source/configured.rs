//! The sources that the configuration asks for.
//!
//! A new source of snapshots takes, within this module:
//! 1. its own file, such as [`super::file`], with an implementation of [`Source`];
//! 2. one line in `sources!` below, which makes it a variant of [`AnySource`];
//! 3. its settings in [`super::settings`], as a section or keys of one, and a variant of [`Mode`] or
//!    [`Location`] that asks for it;
//! 4. its arm in [`ConfiguredSources::open`], with its role: the one that knows the whole cluster, or the one
//!    that knows this node best.
//!
//! What else it takes, such as checks and wiring, is listed in the [crate's documentation](crate). What is
//! made of several sources is decided in [`super::combined`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::file::FileSource;
use super::marathon::{Earlier, MarathonSource};
use super::mesos::poll::MesosPoll;
use super::mesos::stream::MesosStream;
use super::schedule::PollSchedule;
use super::traffic::Traffic;
use super::{Error, Fetched, Location, Mode, Source, settings};
use crate::cluster::Snapshot;

/// Declares the variants of [`AnySource`], each of which passes every call on to its source.
macro_rules! sources {
    ($($variant:ident($source:ty)),+ $(,)?) => {
        /// A source of snapshots of any kind.
        pub enum AnySource {
            $($variant(Box<$source>)),+
        }

        impl Source for AnySource {
            type Item = Snapshot;

            async fn next(&mut self) -> Result<Fetched, Error> {
                match self { $(Self::$variant(source) => source.next().await),+ }
            }

            fn origin(&self) -> String {
                match self { $(Self::$variant(source) => source.origin()),+ }
            }

            fn schedule(&self) -> PollSchedule {
                match self { $(Self::$variant(source) => source.schedule()),+ }
            }

            fn traffic(&self) -> Arc<Traffic> {
                match self { $(Self::$variant(source) => source.traffic()),+ }
            }

            fn servers(&self) -> BTreeMap<IpAddr, String> {
                match self { $(Self::$variant(source) => source.servers()),+ }
            }

            async fn wake(&mut self) {
                match self { $(Self::$variant(source) => source.wake().await),+ }
            }
        }

        $(
            impl From<$source> for AnySource {
                fn from(source: $source) -> Self {
                    Self::$variant(Box::new(source))
                }
            }
        )+
    };
}

sources! {
    File(FileSource),
    Poll(MesosPoll),
    Stream(MesosStream),
}

/// The configured sources by their roles, at least one of them.
pub struct ConfiguredSources {
    /// Source that knows the whole cluster.
    pub cluster: Option<AnySource>,
    /// Source that knows this node's own tasks best.
    pub agent: Option<AnySource>,
    /// Source of Marathon's verdicts on tasks; alone, of the tasks as well.
    pub marathon: Option<MarathonSource>,
}

impl ConfiguredSources {
    /// Opens the configured sources, which go on from what an earlier run knew. Needs an async runtime.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn open(
        source: &settings::Source,
        marathon: &settings::Marathon,
        earlier: Earlier,
    ) -> Result<Self, Error> {
        let cluster = match source.masters.as_slice() {
            [] => None,
            // A file is complete by itself, whatever the mode.
            [Location::File(path)] => Some(FileSource::new(path.clone(), source.interval.0).into()),
            _ => Some(masters(source)?),
        };
        // The node's own agent knows a change of its tasks before the masters do.
        let agent = match source.mode {
            Mode::Agent => Some(MesosPoll::agent(source)?.into()),
            Mode::Poll | Mode::Stream => None,
        };
        let marathon = match marathon.urls.as_slice() {
            [] => None,
            _ => Some(MarathonSource::new(marathon, source, earlier)?),
        };
        Ok(Self { cluster, agent, marathon })
    }
}

fn masters(source: &settings::Source) -> Result<AnySource, Error> {
    Ok(match source.mode {
        Mode::Poll => MesosPoll::new(source)?.into(),
        Mode::Stream => MesosStream::new(source)?.into(),
        // The agent is asked often; the masters have the other tasks, which need not be as new.
        Mode::Agent => {
            MesosPoll::new(&settings::Source { interval: source.resync, ..source.clone() })?.into()
        }
    })
}
