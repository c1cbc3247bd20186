//! The table by which one node tells all other ones what it believes of the cluster.
//!
//! The publisher turns a [`Snapshot`](crate::cluster::Snapshot) and the VIPs' addresses into rows, and each change
//! of them into frames. Followers put the same table together from frames, or from chunks where they know none,
//! and make the snapshot of it again, so that they run the code that runs on a document of a master.
//!
//! ```text
//!                  ┌ encode ┐   ┌─ press ──────────────────────┐   ┌ catch_up ┐   ┌ decode ┐
//!  Snapshot, Leases ─► rows ─► frames ─► head, slots of a ring ─► table ─────────► Snapshot, Leases
//!                                   └──► chunks, manifest ───────►   └► disk
//! ```
//!
//! What belongs here: rows, messages, and what follows from them. Pure; who carries the octets, and when, is
//! decided elsewhere.
//!
//! # Digest
//!
//! A follower knows after each frame that it has exactly the publisher's table, because both have the same
//! [`Digest`](table::Digest): a sum over rows, kept up row by row. Tenants choose what rows say, and of a sum without
//! a key a tenant with a dozen tasks can make two sets of rows with one sum. So each row is hashed with the
//! random number of the table's [`Generation`](table::Generation), which no tenant knows before it begins,
//! into 128 bits. It shows loss and mistakes; who may write is decided by the access rights of the store that
//! carries it. Chunks have a whole SHA-256, because their content can be prepared at leisure.

pub mod catch_up;
pub mod chunks;
pub mod decode;
pub mod disk;
pub mod encode;
pub mod envelope;
pub mod fallback;
mod fields;
pub mod messages;
mod numbers;
pub mod press;
pub mod table;

#[cfg(test)]
mod tests;
