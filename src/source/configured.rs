//! A source by configuration.

use super::file::File;
use super::mesos::poll::Poll;
use super::mesos::stream::Stream;
use super::schedule::Pace;
use super::{Error, Fetched, Location, Mode, Source, settings};
use crate::cluster::Snapshot;

/// A source by configuration.
pub enum AnySource {
    File(File),
    Poll(Box<Poll>),
    Stream(Box<Stream>),
}

impl AnySource {
    /// Makes the configured source.
    pub fn new(config: &settings::Source) -> Result<Self, Error> {
        match config.masters.as_slice() {
            [Location::File(path)] => Ok(Self::File(File::new(path.clone(), config.interval.0))),
            _ => Ok(match config.mode {
                Mode::Poll => Self::Poll(Box::new(Poll::new(config)?)),
                // Masters have the rest, which need not be as new.
                Mode::Agent => Self::Poll(Box::new(Poll::new(&settings::Source {
                    interval: config.resync,
                    ..config.clone()
                })?)),
                Mode::Stream => Self::Stream(Box::new(Stream::new(config)?)),
            }),
        }
    }
}

impl Source for AnySource {
    type Item = Snapshot;

    async fn next(&mut self) -> Result<Fetched, Error> {
        match self {
            Self::File(file) => file.next().await,
            Self::Poll(poll) => poll.next().await,
            Self::Stream(stream) => stream.next().await,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::File(file) => file.place(),
            Self::Poll(poll) => poll.place(),
            Self::Stream(stream) => stream.place(),
        }
    }

    fn pace(&self) -> Pace {
        match self {
            Self::File(file) => file.pace(),
            Self::Poll(poll) => poll.pace(),
            Self::Stream(stream) => stream.pace(),
        }
    }

    async fn wake(&mut self) {
        match self {
            Self::File(file) => file.wake().await,
            Self::Poll(poll) => poll.wake().await,
            Self::Stream(stream) => stream.wake().await,
        }
    }
}
