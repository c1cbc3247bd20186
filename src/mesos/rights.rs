//! Documents that leave out tasks for lack of rights.
//!
//! A master does not refuse a client without rights: it leaves out what the client may not see, and
//! the document looks like that of an idle cluster. But agents always report how much of their
//! resources is in use. Resources in use without any task or executor give such a document away; the
//! reader of documents looks for that ([`super::reading`]).
//! (<https://mesos.apache.org/documentation/latest/authorization/>)

/// Text for an operator whose credentials hide the tasks.
pub const HIDDEN: &str = "agents report resources in use, but no task is in the document: the credentials of l4lbd may not \
                          see tasks; check the master's ACLs view_frameworks and view_tasks for this user";
