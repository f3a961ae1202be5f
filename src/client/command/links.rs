//! What `partition`, `slow` and `heal` share: groups of nodes, the faults of all links, and telling them to the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use futures::future::join_all;

use super::exit::{CommandError, Exit};
use crate::client::{ClientError, Cluster, NodeReport};
use crate::id::NodeId;
use crate::protocol::fault::LinkFault;

/// Nodes in groups, as in `1,2/3`: at least two groups, each node in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups(Vec<BTreeSet<NodeId>>);

impl FromStr for Groups {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut named = BTreeSet::new();
        let mut groups = Vec::new();
        for part in text.split('/') {
            if part.is_empty() {
                return Err(format!("\"{text}\" has an empty group: write it as in 1,2/3"));
            }
            let group: BTreeSet<NodeId> = part.split(',').map(str::parse).collect::<Result<_, _>>()?;
            for node in part.split(',').map(str::parse) {
                let node: NodeId = node?;
                if !named.insert(node) {
                    return Err(format!("node {node} is named twice: each node is in one group"));
                }
            }
            groups.push(group);
        }
        if groups.len() < 2 {
            return Err(format!("\"{text}\" is one group: name at least two, with a slash between, as in 1,2/3"));
        }
        Ok(Groups(groups))
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<String> = self.0.iter().map(|group| names(group).replace(", ", ",")).collect();
        formatter.write_str(&groups.join(" / "))
    }
}

impl Groups {
    /// All nodes that are named.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.0.iter().flatten().copied().collect()
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Every pair of nodes of different groups, in the order of the groups.
    pub fn pairs(&self) -> Vec<(NodeId, NodeId)> {
        let mut pairs = Vec::new();
        for (position, group) in self.0.iter().enumerate() {
            for other in &self.0[position + 1..] {
                pairs.extend(group.iter().flat_map(|from| other.iter().map(|to| (*from, *to))));
            }
        }
        pairs
    }
}

/// Ids with commas between.
pub fn names<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    nodes.into_iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

/// The faults of all links, each end by itself: (node, peer).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults(BTreeMap<(NodeId, NodeId), LinkFault>);

impl Faults {
    fn end(&mut self, node: NodeId, peer: NodeId) -> &mut LinkFault {
        self.0.entry((node, peer)).or_insert(LinkFault::none(peer))
    }

    /// Takes every cut away; delays and losses stay.
    pub fn join(&mut self) {
        self.0.values_mut().for_each(|fault| (fault.cut_in, fault.cut_out) = (false, false));
    }

    /// Cuts one way, at both ends: so the far end knows that it must find silence, also where the system answers by itself.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.end(from, to).cut_out = true;
        self.end(to, from).cut_in = true;
    }

    /// Delays and loses one way, at the end that sends.
    pub fn slow(&mut self, from: NodeId, to: NodeId, like: LinkFault) {
        let end = self.end(from, to);
        *end = LinkFault { peer: to, cut_in: end.cut_in, cut_out: end.cut_out, ..like };
    }

    /// What is to be told to one node.
    pub fn of(&self, node: NodeId) -> Vec<LinkFault> {
        self.0.iter().filter(|((end, _), fault)| *end == node && !fault.is_none()).map(|(_, fault)| *fault).collect()
    }
}

/// The nodes as they are before their links are changed.
pub struct Present {
    /// Why a node cannot be told, or nothing.
    nodes: BTreeMap<NodeId, Option<String>>,
    /// Addresses where nobody answered, and of which nobody knows whose they are.
    strangers: Vec<String>,
    /// The faults that stand.
    pub faults: Faults,
}

impl Present {
    /// Asks all nodes.
    ///
    /// # Errors
    /// No node answers.
    pub async fn look(cluster: &Cluster) -> Result<Present, CommandError> {
        let reports = cluster.status().await;
        if reports.iter().all(|report| report.result.is_err()) {
            return Err(cluster.nobody_answers().into());
        }
        Ok(Present::of(&reports))
    }

    fn of(reports: &[NodeReport]) -> Present {
        let mut present = Present { nodes: BTreeMap::new(), strangers: Vec::new(), faults: Faults::default() };
        for report in reports {
            match (&report.result, report.node) {
                (Ok(status), _) => {
                    present.nodes.insert(status.node, None);
                    let ends = status.faults.iter().map(|fault| ((status.node, fault.peer), *fault));
                    present.faults.0.extend(ends);
                    for peer in &status.peers {
                        let nowhere = "it is at none of the addresses that answered; name it with --nodes".to_owned();
                        present.nodes.entry(peer.node).or_insert(Some(nowhere));
                    }
                }
                (Err(problem), Some(node)) => {
                    present.nodes.insert(node, Some(problem.clone()));
                }
                (Err(problem), None) => present.strangers.push(format!("{}: {problem}", report.address)),
            }
        }
        present
    }

    /// All nodes that are known, whether they answer or not.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Checks that every one of these nodes is known.
    ///
    /// # Errors
    /// The first that is not (exit code 3).
    pub fn check(&self, named: &BTreeSet<NodeId>) -> Result<(), CommandError> {
        let known = self.nodes();
        match named.difference(&known).next() {
            Some(&node) => Err(ClientError::UnknownNode { node, known: names(&known) }.into()),
            None => Ok(()),
        }
    }

    /// Tells these nodes their faults, all at once.
    ///
    /// # Errors
    /// Which nodes could not be told, and that the rest was done all the same (exit code 4). `what` is what is then partial.
    pub async fn tell(&self, cluster: &Cluster, nodes: &BTreeSet<NodeId>, what: &str) -> Result<(), CommandError> {
        let tell = async |node: NodeId| match self.nodes.get(&node) {
            Some(Some(problem)) => Some(format!("node {node}: {problem}")),
            _ => {
                let told = cluster.set_faults(node, &self.faults.of(node)).await;
                told.err().map(|error| format!("node {node}: {error}"))
            }
        };
        let answers = join_all(nodes.iter().map(|node| tell(*node))).await;
        let untold: Vec<String> = answers.into_iter().flatten().chain(self.strangers.iter().cloned()).collect();
        if untold.is_empty() {
            return Ok(());
        }
        let text = format!(
            "{what} is partial, since not every node could be told ({}): repeat it when they answer",
            untold.join("; ")
        );
        Err(CommandError::new(Exit::Unavailable, text))
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
