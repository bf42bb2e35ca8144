//! Reads and checks startup kits and their workspaces.
