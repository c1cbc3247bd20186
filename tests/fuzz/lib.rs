//! The properties, for the fuzz targets.

pub mod properties;
