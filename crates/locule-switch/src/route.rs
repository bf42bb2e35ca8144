use std::collections::BTreeMap;

use locule_message::{Fqcn, HeaderValue, Message, key};

use crate::LinkId;

/// Who is next to this cell, and which of them is the way to a target.
///
/// # Source
/// nvflare 2.9.0, `nvflare.fuel.f3.cellnet.core_cell` (`_find_endpoint`, `_try_find_ep`).
#[derive(Debug)]
pub(crate) struct Neighbours {
    me: Fqcn,
    links: BTreeMap<Fqcn, LinkId>,
}

/// Where a message goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// To this very cell.
    Here,
    /// Over a link.
    Over(LinkId),
}

/// No neighbour is a way to the target, or the only one would send the message round in circles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPath;

/// More hops than any tree of names needs; a longer route is a loop that somebody disguises.
const MAX_HOPS: usize = 4 * Fqcn::MAX_SEGMENTS;

impl Neighbours {
    pub(crate) fn new(me: Fqcn) -> Self {
        Self { me, links: BTreeMap::new() }
    }

    pub(crate) fn insert(&mut self, name: Fqcn, link: LinkId) {
        self.links.insert(name, link);
    }

    /// Forgets the neighbour, unless its name belongs to another link by now.
    pub(crate) fn remove(&mut self, name: &Fqcn, link: LinkId) {
        if self.links.get(name) == Some(&link) {
            self.links.remove(name);
        }
    }

    pub(crate) fn get(&self, name: &Fqcn) -> Option<LinkId> {
        self.links.get(name).copied()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Fqcn> {
        self.links.keys()
    }

    /// The next hop for `message` to `target`; `came_by` is the neighbour that delivered it, if any.
    pub(crate) fn next_hop(
        &self,
        target: &Fqcn,
        message: &Message,
        came_by: Option<&Fqcn>,
    ) -> Result<Hop, NoPath> {
        if *target == self.me {
            return Ok(Hop::Here);
        }
        let route = Route::of(message);
        let transit = message.headers.bool(key::SERVER_TRANSIT_REQUIRED) == Some(true);
        let coming_down = transit && self.came_down(&route, came_by);
        let (name, link) = if transit && !coming_down && !self.me.is_on_server() {
            self.towards_server()
        } else {
            self.towards(target)
        }
        .ok_or(NoPath)?;

        let may_revisit = transit
            && if self.me == Fqcn::server() {
                !route.passed(Fqcn::server().as_str())
            } else {
                coming_down && self.me.is_ancestor_of(name)
            };
        if name != target && (route.len() >= MAX_HOPS || route.passed(name.as_str()) && !may_revisit) {
            return Err(NoPath);
        }
        Ok(Hop::Over(link))
    }

    fn towards(&self, target: &Fqcn) -> Option<(&Fqcn, LinkId)> {
        if let Some(direct) = self.find(target.as_str()) {
            return Some(direct);
        }
        if self.me.is_ancestor_of(target) {
            return self.longest_prefix(target);
        }
        if self.me.same_family(target)
            && let Some(parent) = self.parent()
        {
            return Some(parent);
        }
        self.longest_prefix(target).or_else(|| self.server()).or_else(|| self.parent())
    }

    /// Messages between families cross the server, however short another way may be.
    fn towards_server(&self) -> Option<(&Fqcn, LinkId)> {
        self.server().or_else(|| ancestors(&self.me).find_map(|name| self.find(name)))
    }

    /// Whether a message that must cross the server has done so. The route says it, but anybody could
    /// write that; it counts only when the neighbour above delivered it.
    fn came_down(&self, route: &Route, came_by: Option<&Fqcn>) -> bool {
        let above =
            came_by.is_some_and(|from| *from == Fqcn::server() || self.me.parent().as_ref() == Some(from));
        above && !self.me.is_on_server() && route.passed(Fqcn::server().as_str())
    }

    /// The neighbour with the longest name above `target`, but not above this cell as well: that one
    /// would send the message straight back.
    fn longest_prefix(&self, target: &Fqcn) -> Option<(&Fqcn, LinkId)> {
        ancestors(target)
            .take_while(|name| !(self.me == **name || is_above(name, &self.me)))
            .find_map(|name| self.find(name))
    }

    fn server(&self) -> Option<(&Fqcn, LinkId)> {
        self.find(Fqcn::server().as_str())
    }

    fn parent(&self) -> Option<(&Fqcn, LinkId)> {
        ancestors(&self.me).next().and_then(|name| self.find(name))
    }

    fn find(&self, name: &str) -> Option<(&Fqcn, LinkId)> {
        self.links.get_key_value(name).map(|(name, link)| (name, *link))
    }
}

/// The names above `name`, nearest first.
fn ancestors(name: &Fqcn) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name.as_str()), |name| name.rsplit_once('.').map(|(parent, _)| parent)).skip(1)
}

fn is_above(name: &str, other: &Fqcn) -> bool {
    other.as_str().strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

/// The cells that a message has passed, as its header says.
struct Route<'a>(Vec<HeaderValue<'a>>);

impl<'a> Route<'a> {
    fn of(message: &'a Message) -> Self {
        match message.headers.get(key::ROUTE) {
            Some(HeaderValue::Array(hops)) => Self(hops),
            Some(
                HeaderValue::Nil
                | HeaderValue::Bool(_)
                | HeaderValue::Int(_)
                | HeaderValue::UInt(_)
                | HeaderValue::Float(_)
                | HeaderValue::Str(_)
                | HeaderValue::Bin(_)
                | HeaderValue::Map(_),
            )
            | None => Self(Vec::new()),
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn passed(&self, name: &str) -> bool {
        self.0.iter().any(|hop| match hop {
            HeaderValue::Array(pair) => pair.first().and_then(HeaderValue::as_str) == Some(name),
            HeaderValue::Nil
            | HeaderValue::Bool(_)
            | HeaderValue::Int(_)
            | HeaderValue::UInt(_)
            | HeaderValue::Float(_)
            | HeaderValue::Str(_)
            | HeaderValue::Bin(_)
            | HeaderValue::Map(_) => false,
        })
    }
}

/// Appends this cell to the message's route. A route that is no array is left alone, as at the peer.
pub(crate) fn append_to_route(message: &mut Message, me: &Fqcn, unix_seconds: f64) {
    let mut hops = match message.headers.get(key::ROUTE) {
        None | Some(HeaderValue::Nil) => Vec::new(),
        Some(HeaderValue::Array(hops)) => hops.into_iter().map(HeaderValue::into_owned).collect(),
        Some(
            HeaderValue::Bool(_)
            | HeaderValue::Int(_)
            | HeaderValue::UInt(_)
            | HeaderValue::Float(_)
            | HeaderValue::Str(_)
            | HeaderValue::Bin(_)
            | HeaderValue::Map(_),
        ) => return,
    };
    hops.push(HeaderValue::Array(vec![HeaderValue::from(me).into_owned(), unix_seconds.into()]));
    message.headers.set(key::ROUTE, hops);
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_message::Headers;

    fn name(text: &str) -> Fqcn {
        text.parse().unwrap()
    }

    /// From `me` with links to `neighbours`, a message to `target` goes to the neighbour `expected`.
    #[track_caller]
    fn check(me: &str, neighbours: &[&str], target: &str, expected: Option<&str>) {
        check_message(me, neighbours, target, expected, &Message::default(), None);
    }

    #[track_caller]
    fn check_message(
        me: &str,
        neighbours: &[&str],
        target: &str,
        expected: Option<&str>,
        message: &Message,
        came_by: Option<&str>,
    ) {
        let mut table = Neighbours::new(name(me));
        for (number, neighbour) in neighbours.iter().enumerate() {
            table.insert(name(neighbour), LinkId(number as u64 + 1));
        }
        let came_by = came_by.map(name);
        let hop = match table.next_hop(&name(target), message, came_by.as_ref()) {
            Ok(Hop::Here) => Some(me),
            Ok(Hop::Over(LinkId(number))) => Some(neighbours[number as usize - 1]),
            Err(NoPath) => None,
        };
        assert_eq!(hop, expected, "{me} with {neighbours:?} to {target}");
    }

    fn passed(hops: &[&str], transit: bool) -> Message {
        let mut message = Message { headers: Headers::new(), ..Message::default() };
        for hop in hops {
            append_to_route(&mut message, &name(hop), 1.0);
        }
        if transit {
            message.headers.set(key::SERVER_TRANSIT_REQUIRED, true);
        }
        message
    }

    #[test]
    fn a_direct_link_beats_every_other_way() {
        check("site-1", &["server", "site-2"], "site-2", Some("site-2"));
        check("site-1.job", &["site-1", "server", "server.job"], "server.job", Some("server.job"));
        check("site-1", &["server"], "site-1", Some("site-1"));
    }

    #[test]
    fn within_a_family_messages_go_down_by_the_longest_prefix_and_up_by_the_parent() {
        check("relay", &["server", "relay.site-1"], "relay.site-1.job", Some("relay.site-1"));
        check("relay.site-1.job", &["relay.site-1", "server"], "relay.site-2", Some("relay.site-1"));
        check("relay.site-1.job", &["relay.site-1", "server"], "relay", Some("relay.site-1"));
        check("relay", &["server"], "relay.site-1", None);
        check("a.b", &["a", "server"], "a.b.c.d", None);
    }

    #[test]
    fn within_a_family_without_a_parent_the_server_is_tried() {
        check("site-1.job", &["server"], "site-1", Some("server"));
        check("server.job", &[], "server", None);
    }

    #[test]
    fn other_families_are_reached_by_prefix_then_server_then_parent() {
        check("server", &["relay", "relay-2"], "relay.site-1.job", Some("relay"));
        check("site-1", &["server"], "site-2.job", Some("server"));
        check("site-1.job", &["site-1", "server"], "server.job", Some("server"));
        check("site-1.job", &["site-1"], "server.job", Some("site-1"));
        check("server", &["site-1"], "site-2", None);
        check("server.job", &["server"], "site-1.job", Some("server"));
        check("site-1", &[], "server", None);
    }

    #[test]
    fn a_hop_already_on_the_route_is_refused_unless_it_is_the_target() {
        check_message("site-1", &["server"], "site-2", None, &passed(&["server"], false), Some("server"));
        check_message("site-1", &["site-2"], "site-2", Some("site-2"), &passed(&["site-2"], false), None);
    }

    #[test]
    fn a_route_longer_than_any_tree_is_refused() {
        let hops: Vec<String> = (0..MAX_HOPS).map(|number| format!("cell-{number}")).collect();
        let hops: Vec<&str> = hops.iter().map(String::as_str).collect();
        check_message("site-1", &["server"], "site-2", None, &passed(&hops, false), None);
        check_message("site-1", &["server"], "server", Some("server"), &passed(&hops, false), None);
    }

    #[test]
    fn what_must_cross_the_server_goes_up_before_it_goes_across() {
        let up = passed(&["site-1.job"], true);
        check_message("site-1.job", &["site-1", "site-2"], "site-2", Some("site-1"), &up, None);
        check_message("site-1.job", &["site-1", "server"], "site-2", Some("server"), &up, None);
        check_message("site-1", &["site-2"], "site-2", None, &up, Some("site-1.job"));
    }

    #[test]
    fn what_has_crossed_the_server_may_come_down_the_way_it_went_up() {
        let at_server = passed(&["relay.site-1", "relay"], true);
        check_message("server", &["relay"], "relay.site-2.job", Some("relay"), &at_server, Some("relay"));
        let coming_down = passed(&["relay.site-1", "relay", "server"], true);
        check_message(
            "relay",
            &["server", "relay.site-2"],
            "relay.site-2.job",
            Some("relay.site-2"),
            &coming_down,
            Some("server"),
        );
    }

    #[test]
    fn a_forged_route_does_not_spare_a_message_the_server() {
        let forged = passed(&["site-1", "server"], true);
        check_message("relay", &["server", "relay.b"], "relay.b", Some("server"), &passed(&[], true), None);
        check_message("relay", &["server", "relay.b"], "relay.b", None, &forged, Some("relay.a"));
    }

    #[test]
    fn a_route_that_is_no_array_is_left_alone() {
        let mut message = Message::default();
        message.headers.set(key::ROUTE, "nonsense");
        append_to_route(&mut message, &name("site-1"), 1.0);
        assert_eq!(message.headers.str(key::ROUTE), Some("nonsense"));
    }

    #[test]
    fn a_neighbour_that_came_back_is_not_forgotten_with_its_old_link() {
        let mut table = Neighbours::new(name("server"));
        table.insert(name("site-1"), LinkId(1));
        table.insert(name("site-1"), LinkId(2));
        table.remove(&name("site-1"), LinkId(1));
        assert_eq!(table.get(&name("site-1")), Some(LinkId(2)));
    }
}
