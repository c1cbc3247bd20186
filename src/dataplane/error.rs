//! Errors of opening and reading the kernel.

use super::host::{link, nft};
use super::lock;
use super::node::PlaneKind;
use super::plane::PlaneError;

/// Failure to open the data plane, or to read it at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the data plane {}: {source}", .source.plane)]
    Plane {
        #[from]
        source: PlaneError,
    },
    #[error("this node can use no data plane: {}", listed(.0))]
    NoPlane(Vec<PlaneError>),
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error("cannot read links, addresses or routes: {0}")]
    Links(#[from] link::Error),
    #[error("cannot read netfilter rules: {0}")]
    Netfilter(#[from] nft::Error),
}

impl Error {
    /// Returns the plane that the kernel lacks, if that is the error.
    pub fn absent_plane(&self) -> Option<PlaneKind> {
        match self {
            Self::Plane { source } => source.is_absence.then_some(source.plane),
            _ => None,
        }
    }
}

fn listed(errors: &[PlaneError]) -> String {
    errors.iter().map(|error| format!("{}: {error}", error.plane)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(plane: PlaneKind) -> PlaneError {
        PlaneError::absence(plane, std::io::Error::other("not there"))
    }

    #[test]
    fn text_names_each_plane_with_its_cause() {
        let error = Error::NoPlane(PlaneKind::ALL.map(absent).into());
        assert_eq!(error.to_string(), "this node can use no data plane: ipvs: not there; ebpf: not there");
        assert_eq!(error.absent_plane(), None);
        let error = Error::from(absent(PlaneKind::Ipvs));
        assert_eq!(error.to_string(), "cannot use the data plane ipvs: not there");
    }

    #[test]
    fn absent_plane_is_one_that_the_kernel_lacks() {
        assert_eq!(Error::from(absent(PlaneKind::Ebpf)).absent_plane(), Some(PlaneKind::Ebpf));
        let refused = PlaneError::new(PlaneKind::Ipvs, std::io::Error::other("not allowed"));
        assert_eq!(Error::from(refused).absent_plane(), None);
    }
}
