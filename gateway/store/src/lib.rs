//! What outlives a process: traits, versioned records, backends.
