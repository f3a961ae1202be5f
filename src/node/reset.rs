//! `cloud-node reset N`: deletes a node's data directory, after checks.

use crate::config::ClusterConfig;
use crate::id::NodeId;
use crate::node::data_dir::DataDir;
use crate::node::options::NodeError;

/// Deletes what node `id` keeps on this machine: its log, its snapshots and its incarnation, not the secrets. Says what was done.
///
/// # Errors
/// [`NodeError::NotConfirmed`] without `confirmed`; [`NodeError::DataDirectory`] if a node runs on it, or it is not that node's.
pub fn reset(config: &ClusterConfig, id: NodeId, confirmed: bool) -> Result<String, NodeError> {
    let address = config.node(id)?.http;
    let path = config.node_directory(id);
    let Some(directory) = DataDir::open_existing(&path, id)? else {
        return Ok(format!("{} does not exist: there is nothing to delete\n", path.display()));
    };
    let member = directory.member();
    let bytes = directory.size_bytes()?;
    if !confirmed {
        return Err(NodeError::NotConfirmed { id, path, bytes });
    }
    directory.delete()?;
    Ok(format!(
        "deleted {} ({bytes} bytes, incarnation {})\n\
         To its cluster this node is a stranger now. While the others run, start it and take it in again: \
         client members replace {id} {address}\n\
         For a new cluster: reset all nodes before you start any.\n",
        path.display(),
        member.incarnation
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::data_dir::DataDirError;
    use std::fs;

    fn config(root: &std::path::Path) -> ClusterConfig {
        ClusterConfig { data: root.to_owned(), ..ClusterConfig::default() }
    }

    #[test]
    fn a_directory_goes_as_a_whole_and_only_when_it_is_confirmed() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        let path = config.node_directory(NodeId(1));
        let first = DataDir::open(&path, NodeId(1)).unwrap().member();
        fs::create_dir(path.join("raft")).unwrap();
        fs::write(path.join("raft/log"), [0; 1000]).unwrap();
        fs::write(path.join("raft.begun"), "").unwrap();

        let refused = reset(&config, NodeId(1), false).unwrap_err();
        assert!(refused.is_usage());
        let text = refused.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("--yes"), "{text}");
        assert_eq!(DataDir::open(&path, NodeId(1)).unwrap().member(), first, "nothing is gone");

        let done = reset(&config, NodeId(1), true).unwrap();
        assert!(done.lines().any(|line| line.ends_with(": client members replace 1 127.0.0.1:8001")), "{done}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(reset(&config, NodeId(1), true).unwrap().contains("nothing to delete"));
        assert_ne!(DataDir::open(&path, NodeId(1)).unwrap().member(), first, "another life");
    }

    /// What is in use, another's, damaged or a stranger's stays to the last byte.
    #[test]
    fn what_is_not_this_nodes_own_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        let path = config.node_directory(NodeId(1));
        let refused = |expected: &str| {
            let before = fs::read_dir(&path).unwrap().count();
            let error = reset(&config, NodeId(1), true).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read_dir(&path).unwrap().count(), before, "{expected}");
        };

        fs::create_dir(&path).unwrap();
        fs::write(path.join("thesis.txt"), "years of work").unwrap();
        refused("not the data directory of a node");
        fs::remove_file(path.join("thesis.txt")).unwrap();

        let running = DataDir::open(&path, NodeId(1)).unwrap();
        refused("in use");
        drop(running);
        fs::write(path.join("thesis.txt"), "years of work").unwrap();
        refused("thesis.txt");
        fs::remove_file(path.join("thesis.txt")).unwrap();

        let identity = fs::read_to_string(path.join("node.toml")).unwrap();
        fs::write(path.join("node.toml"), identity.replace("node = 1", "node = 2")).unwrap();
        refused("belongs to node 2");
        fs::write(path.join("node.toml"), "nonsense").unwrap();
        refused("damaged");

        let error = reset(&config, NodeId(9), true).unwrap_err();
        assert!(error.is_usage(), "{error}");
    }

    /// A reset that was interrupted while it deleted leaves no directory that a node would start on, and the next one ends it.
    #[test]
    fn an_interrupted_reset_is_finished_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        let path = config.node_directory(NodeId(1));
        DataDir::open(&path, NodeId(1)).unwrap();
        let left = root.path().join("node-1.deleted");
        fs::create_dir_all(left.join("raft/log")).unwrap();
        reset(&config, NodeId(1), true).unwrap();
        assert!(!left.exists() && !path.exists());
        assert!(matches!(DataDir::open_existing(&path, NodeId(1)), Ok(None) | Err(DataDirError::Io { .. })));
    }
}
