//! What kits of older versions say otherwise.

use locule_config::Node;

use crate::Address;
use crate::fields::Fields;

/// Where the server is, in a kit of nvflare 2.7: its sites ask an agent, which always gives the same answer. `None`
/// in kits that name it, as later ones do.
///
/// # Source
/// nvflare 2.7.3, `nvflare.ha.dummy_overseer_agent`.
pub(crate) fn server(fields: &mut Fields, root: &Node, server: &Node) -> Option<Address> {
    let agent = root.get("overseer_agent").filter(|agent| !agent.is_null())?;
    if server.find(&["service", "target"]).is_some_and(|target| !target.is_null()) {
        return None;
    }
    let service = fields.object(server, "service");
    let scheme = fields.scheme(service);
    let Some(node) = agent.find(&["args", "sp_end_point"]) else {
        let message = "`overseer_agent` names no server: an overseer of nvflare 2.7 is not supported";
        fields.bad(agent, message);
        return Some(Address { scheme, host: String::new(), port: 0 });
    };
    // The last is the administrators' port.
    let text = node.as_str().unwrap_or_default();
    let address = match text.split(':').collect::<Vec<_>>()[..] {
        [host, port, _] => Fields::host_and_port(&format!("{host}:{port}")),
        _ => None,
    };
    let (host, port) = address.unwrap_or_else(|| {
        fields.bad(node, "`sp_end_point` must be `host:port:port` with ports between 1 and 65535");
        (text.to_owned(), 0)
    });
    Some(Address { scheme, host, port })
}
