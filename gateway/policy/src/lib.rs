//! Compiles a realm's objects into a Snapshot and takes every decision on it.
