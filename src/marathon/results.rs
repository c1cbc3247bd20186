//! Results of a task's checks, as one answer of Marathon has them.

/// Result of all checks of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    Good,
    Bad,
    /// Not all checks have a result, and none has a bad one.
    Missing,
}

/// Results of the checks of one task, as one answer has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskResults {
    /// Result of the health checks; `Good` for a running task without any.
    pub health: CheckResult,
    /// Result of the readiness checks; `Good` where none is awaited.
    pub readiness: CheckResult,
    /// True if only Marathon can judge the task, because Mesos does not know its checks.
    pub is_marathons: bool,
    /// True if the task has any check, of Marathon or of Mesos.
    pub is_checked: bool,
}
