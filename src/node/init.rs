//! `cloud-node init`: the secrets of a cluster on several machines, and what to do with them.

use std::fmt::Write;
use std::path::Path;

use super::options::NodeError;
use crate::config::secrets::NODE_YEARS;
use crate::config::secrets::bundles::{self, Bundles, Occasion};
use crate::config::{ClusterConfig, ConfiguredNode};

/// Makes the bundles in `out`; says in plain words what was made and what to copy where.
///
/// # Errors
/// They cannot be made.
pub fn init(config: &ClusterConfig, out: &Path, occasion: Occasion) -> Result<String, NodeError> {
    let bundles = bundles::make(out, &config.nodes, occasion)?;
    Ok(instructions(config, &bundles, occasion))
}

/// Makes the bundle of one node that comes to the cluster whose secrets are in `out`; says what to do with it.
///
/// # Errors
/// It cannot be made.
pub fn add(node: &ConfiguredNode, out: &Path) -> Result<String, NodeError> {
    let bundles = bundles::make(out, std::slice::from_ref(node), Occasion::Add)?;
    let (id, http) = (node.id, node.http);
    let path = bundles.nodes.first().map(|(_, path)| path.clone()).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!(
        "Made the bundle of node {id}, for {http}, valid for {NODE_YEARS} years. Copy {} to its machine, and nowhere else, and there:\n  \
         cloud-node {id} --listen {http} --secrets {name} --join\n\
         Then let it in, from here:\n  \
         client --ca {operator}/ca.pem --admin-token-file {operator}/admin.token members add {id} {http}\n\
         (or `members replace {id} {http}` if it takes the place of the node {id} that there is)\n",
        path.display(),
        operator = bundles.operator.display(),
    ))
}

fn instructions(config: &ClusterConfig, bundles: &Bundles, occasion: Occasion) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    let operator = bundles.operator.display();
    match occasion {
        Occasion::Create => line(format!("Made the secrets of a new cluster of {} nodes.", bundles.nodes.len())),
        Occasion::Renew | Occasion::Add => line(format!(
            "Made new certificates for {} nodes; cluster key, authority and admin token are the same as before.",
            bundles.nodes.len()
        )),
    }
    line(format!("The certificates are valid for {NODE_YEARS} years; after that: cloud-node init --renew.\n"));
    line(
        "Copy each directory to its machine, and nowhere else; its mode stays 0700, that of the files 0600:".to_owned(),
    );
    for ((id, path), node) in bundles.nodes.iter().zip(&config.nodes) {
        line(format!(
            "  {}  to the machine of node {id} ({}), there: cloud-node {id} --config cluster.toml --secrets {}",
            path.display(),
            node.http.ip(),
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    line("\nCopy the configuration, the same for all, to each machine too.".to_owned());
    line(format!("{operator} stays with you: with its ca.key new nodes can be let in."));
    line(format!(
        "Clients need two of its files: client --ca {operator}/ca.pem --admin-token-file {operator}/admin.token status"
    ));
    if let Some(warning) = config.warning_of_size() {
        line(format!("\nBeware: {warning}."));
    }
    let loopback = config.nodes.iter().filter(|node| node.http.ip().is_loopback());
    let loopback: Vec<String> = loopback.map(|node| node.id.to_string()).collect();
    if !loopback.is_empty() {
        line(format!(
            "\nBeware: the configuration has loopback addresses for node {}, which other machines cannot reach. Write the real ones \
             there and run this again with --renew: they stand in the certificates.",
            loopback.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_to_copy_where_and_what_stays() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("secrets");
        let text = init(&ClusterConfig::default(), &out, Occasion::Create).unwrap();
        for word in
            ["node-1  to the machine of node 1", "--secrets node-3", "operator stays with you", "5 years", "loopback"]
        {
            assert!(text.contains(word), "{word:?} is missing in {text}");
        }
        let text = init(&ClusterConfig::default(), &out, Occasion::Renew).unwrap();
        assert!(text.contains("new certificates"), "{text}");

        let four = ConfiguredNode { id: crate::id::NodeId(4), http: "10.0.0.4:8001".parse().unwrap(), peer: None };
        let before = std::fs::read(out.join("node-1/node-1.pem")).unwrap();
        let text = add(&four, &out).unwrap();
        for word in ["secrets/node-4", "--listen 10.0.0.4:8001 --secrets node-4 --join", "members add 4 10.0.0.4:8001"]
        {
            assert!(text.contains(word), "{word:?} is missing in {text}");
        }
        assert!(crate::config::secrets::of_bundle(&out.join("node-4"), four.id).is_ok());
        assert_eq!(std::fs::read(out.join("node-1/node-1.pem")).unwrap(), before, "the others keep theirs");
    }
}
