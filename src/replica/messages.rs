//! Messages of format 1, as protobuf: `protoc --decode_raw` reads them.
//!
//! A field is never given another meaning, and its number never to another one: readers of all versions meet.
//! Unknown fields are passed over, and count in the digest, because rows are kept as they came.

use prost::Message;

/// Tells what changed last, and where the rest is.
#[derive(Clone, PartialEq, Message)]
pub struct HeadMessage {
    /// Lowest format that a reader must know.
    #[prost(uint32, tag = "1")]
    pub min_reader: u32,
    /// 16 random octets.
    #[prost(bytes = "vec", tag = "2")]
    pub generation: Vec<u8>,
    /// Number of the last frame; 0 for none yet.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// Digest of the table after it.
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub rows: u64,
    /// Oldest frame that the ring has.
    #[prost(uint64, tag = "6")]
    pub ring_first: u64,
    #[prost(uint32, tag = "7")]
    pub ring_slots: u32,
    /// Time of office of the publisher, one more for each.
    #[prost(uint64, tag = "8")]
    pub term: u64,
    #[prost(message, optional, tag = "9")]
    pub publisher: Option<PublisherMessage>,
    #[prost(message, optional, tag = "10")]
    pub facts: Option<FactsMessage>,
    /// Frames as they are stored, the newest last and numbered `seq`, without a gap.
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub frames: Vec<Vec<u8>>,
}

/// Node that publishes, for people.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PublisherMessage {
    #[prost(string, tag = "1")]
    pub node: String,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(string, tag = "3")]
    pub version: String,
}

/// Facts that followers tell people about the publisher's source, and the cost of polling it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FactsMessage {
    /// The publisher's clock, which nothing is decided by.
    #[prost(uint64, tag = "1")]
    pub written_ms: u64,
    /// Time since the source last confirmed what is believed.
    #[prost(uint64, tag = "2")]
    pub source_age_ms: u64,
    #[prost(string, tag = "3")]
    pub place: String,
    /// Reason why the source does not answer.
    #[prost(string, tag = "4")]
    pub trouble: String,
    #[prost(string, repeated, tag = "5")]
    pub held: Vec<String>,
    #[prost(uint32, tag = "6")]
    pub agents: u32,
    #[prost(uint32, tag = "7")]
    pub tasks: u32,
    #[prost(uint32, tag = "8")]
    pub named: u32,
    #[prost(uint32, tag = "9")]
    pub skipped: u32,
    #[prost(uint32, tag = "10")]
    pub vips: u32,
    /// Size on the wire of the source's last complete answer, and the time that it took.
    #[prost(uint64, tag = "11")]
    pub document_bytes: u64,
    #[prost(uint32, tag = "12")]
    pub answer_ms: u32,
    #[prost(string, tag = "13")]
    pub range4: String,
    #[prost(string, tag = "14")]
    pub range6: String,
    /// Hash of the publisher's settings of VIPs and of the zone.
    #[prost(fixed64, tag = "15")]
    pub rules: u64,
}

/// One change of the table.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FrameMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub generation: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// Digests of the table before and after it.
    #[prost(bytes = "vec", tag = "3")]
    pub before: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub after: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    pub put: Vec<PutMessage>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub drop: Vec<Vec<u8>>,
    /// Time at which the publisher heard of it, by its clock, for measurements.
    #[prost(uint64, tag = "7")]
    pub heard_ms: u64,
}

/// A row.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// Chunks that make up the table, sorted; the first begins with the empty key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ManifestMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub generation: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub chunks: Vec<ChunkMessage>,
}

/// A chunk: where it is, and what it has.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ChunkMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub first_key: Vec<u8>,
    /// Name below `chunks`.
    #[prost(string, tag = "2")]
    pub node: String,
    /// Last frame that is in it.
    #[prost(uint64, tag = "3")]
    pub as_of: u64,
    /// SHA-256 of it as stored.
    #[prost(bytes = "vec", tag = "4")]
    pub sha: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub bytes: u32,
    #[prost(uint32, tag = "6")]
    pub rows: u32,
}

/// Rows of a chunk, sorted by their keys.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ChunkBody {
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<PutMessage>,
}

/// First part of the file that a follower keeps; chunks come after it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeptTable {
    #[prost(bytes = "vec", tag = "1")]
    pub generation: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub rows: u64,
}

/// Masters: the one that answered, and the address of the one that leads. An address has 4 or 16 octets.
#[derive(Clone, PartialEq, Message)]
pub struct MasterRow {
    /// Absent where no master named itself.
    #[prost(string, optional, tag = "1")]
    pub id: Option<String>,
    #[prost(double, tag = "2")]
    pub elected_time: f64,
    #[prost(bytes = "vec", tag = "3")]
    pub address: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub leader: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub leader_port: u32,
}

/// A framework, which may be known only by its tasks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FrameworkRow {
    #[prost(string, tag = "1")]
    pub id: String,
    /// Absent where no document named it.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    #[prost(bytes = "vec", tag = "3")]
    pub scheduler: Vec<u8>,
    #[prost(uint32, optional, tag = "4")]
    pub scheduler_port: Option<u32>,
    #[prost(message, optional, tag = "5")]
    pub registered: Option<TimeRow>,
}

/// Seconds since the epoch, and nanoseconds of the same sign.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct TimeRow {
    #[prost(sint64, tag = "1")]
    pub seconds: i64,
    #[prost(sint32, tag = "2")]
    pub nanos: i32,
}

/// An agent, which may be known only by its tasks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AgentRow {
    #[prost(string, tag = "1")]
    pub id: String,
    /// Absent where it is not registered.
    #[prost(string, optional, tag = "2")]
    pub hostname: Option<String>,
    #[prost(bytes = "vec", tag = "3")]
    pub address: Vec<u8>,
    #[prost(uint32, optional, tag = "4")]
    pub port: Option<u32>,
    /// Set if the master knows of it and it has not registered again.
    #[prost(bool, tag = "5")]
    pub awaited: bool,
    /// Fault domain. Format 1 has it from the beginning, because an older follower would prefer no backend.
    #[prost(string, optional, tag = "6")]
    pub region: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub zone: Option<String>,
    /// Attributes that the publisher is configured to read, sorted by name.
    #[prost(message, repeated, tag = "8")]
    pub attributes: Vec<AttributeRow>,
}

/// An attribute of an agent, its value as text.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AttributeRow {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Addresses of a name.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AddressRow {
    #[prost(bytes = "vec", tag = "1")]
    pub v4: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub v6: Vec<u8>,
}

/// A task with VIP labels. Terminal ones have no row.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VipTaskRow {
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    /// 0 preparing, 1 running, 2 killing, 3 lost; other ones count as preparing.
    #[prost(uint32, tag = "2")]
    pub state: u32,
    /// 0 no check, 1 healthy, other ones not.
    #[prost(uint32, tag = "3")]
    pub health: u32,
    #[prost(bool, tag = "4")]
    pub docker: bool,
    #[prost(message, repeated, tag = "5")]
    pub addresses: Vec<TaskAddressRow>,
    #[prost(message, repeated, tag = "6")]
    pub ports: Vec<VipPortRow>,
    /// Absent where it is the part of the task's id before its last dot, or before its instance.
    #[prost(string, optional, tag = "7")]
    pub app: Option<String>,
    /// First and last ports, in pairs.
    #[prost(uint32, repeated, tag = "8")]
    pub resources: Vec<u32>,
    /// Set if the last document does not list it as running.
    #[prost(bool, tag = "9")]
    pub kept: bool,
}

/// An address of a task.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskAddressRow {
    #[prost(bytes = "vec", tag = "1")]
    pub address: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    pub network: Option<String>,
}

/// A port with VIP labels.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VipPortRow {
    #[prost(string, tag = "1")]
    pub name: String,
    /// 1 TCP, 2 UDP; ports of other ones are passed over.
    #[prost(uint32, tag = "2")]
    pub protocol: u32,
    #[prost(uint32, optional, tag = "3")]
    pub port: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    pub host_port: Option<u32>,
    #[prost(string, repeated, tag = "5")]
    pub networks: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub labels: Vec<LabelRow>,
    #[prost(bool, tag = "7")]
    pub in_container: bool,
    #[prost(bool, tag = "8")]
    pub allocated: bool,
    #[prost(message, optional, tag = "9")]
    pub options: Option<OptionsRow>,
}

/// A label as written.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LabelRow {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Wishes of further labels of a port. Times are in nanoseconds.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OptionsRow {
    #[prost(string, optional, tag = "1")]
    pub scheduler: Option<String>,
    #[prost(bool, tag = "2")]
    pub sticky_idle: bool,
    #[prost(uint64, optional, tag = "3")]
    pub drain: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub weight: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    pub slow_start: Option<u64>,
    #[prost(bool, tag = "6")]
    pub no_ejection: bool,
    /// 1 any, 2 node, 3 zone, 4 region; other ones count as none said.
    #[prost(uint32, tag = "7")]
    pub locality: u32,
    /// Time for which a client's connections go to one backend. Format 1 has it from the beginning, because an
    /// older follower would spread them.
    #[prost(uint64, optional, tag = "8")]
    pub affinity: Option<u64>,
    /// 1 the port, 2 the VIP with all its ports; other ones count as none said.
    #[prost(uint32, tag = "9")]
    pub affinity_scope: u32,
}

/// Facts of a running task that names in DNS follow from.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NameRow {
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    #[prost(string, tag = "2")]
    pub label: String,
    #[prost(string, optional, tag = "3")]
    pub written: Option<String>,
    #[prost(bool, tag = "4")]
    pub published: bool,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub addresses: Vec<Vec<u8>>,
    #[prost(bool, tag = "6")]
    pub discovery: bool,
    #[prost(message, repeated, tag = "7")]
    pub ports: Vec<NamePortRow>,
    /// First and last ports, in pairs.
    #[prost(uint32, repeated, tag = "8")]
    pub resources: Vec<u32>,
    #[prost(uint32, repeated, tag = "9")]
    pub executor_ports: Vec<u32>,
    #[prost(bool, tag = "10")]
    pub kept: bool,
}

/// A discovery port.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NamePortRow {
    #[prost(string, tag = "1")]
    pub label: String,
    /// 0 any, 1 TCP, 2 UDP; ports of other ones are passed over.
    #[prost(uint32, tag = "2")]
    pub protocol: u32,
    #[prost(uint32, tag = "3")]
    pub number: u32,
}
