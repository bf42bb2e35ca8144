//! Shell-style patterns of task and component names.

/// Whether `text` matches `pattern`: `*` any run of characters, `?` one character, `[abc]`, `[a-z]` and `[!a]`
/// one character of a set. Case counts. Takes time in proportion to the product of both lengths at worst.
///
/// # Source
/// nvflare 2.9.0 matches task names with Python's `fnmatch` rules.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if let Some(next) = match_one(&pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        let Some((after_star, from)) = retry else { return false };
        retry = Some((after_star, from + 1));
        (p, t) = (after_star, from + 1);
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The position behind the pattern's unit at `p` when that unit accepts `c`.
fn match_one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => match set_end(pattern, p) {
            Some(end) => set_accepts(&pattern[p + 1..end], c).then_some(end + 1),
            None => (c == '[').then_some(p + 1),
        },
        literal => (*literal == c).then_some(p + 1),
    }
}

/// Where the set that opens at `p` closes; a `]` right behind the opening or the `!` belongs to the set.
fn set_end(pattern: &[char], p: usize) -> Option<usize> {
    let first = p + 1 + usize::from(pattern.get(p + 1) == Some(&'!'));
    (first + 1..pattern.len()).find(|i| pattern[*i] == ']')
}

fn set_accepts(set: &[char], c: char) -> bool {
    let (negated, set) = match set.split_first() {
        Some(('!', rest)) => (true, rest),
        Some(_) | None => (false, set),
    };
    let mut i = 0;
    let mut found = false;
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == '-' {
            found |= set[i] <= c && c <= set[i + 2];
            i += 3;
        } else {
            found |= set[i] == c;
            i += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn patterns_follow_the_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "train", true),
            ("train", "train", true),
            ("train", "Train", false),
            ("train*", "train_more", true),
            ("*_model", "submit_model", true),
            ("*a*b*c", "xaybzc", true),
            ("*a*b*c", "xaybz", false),
            ("t?ain", "train", true),
            ("t?ain", "tain", false),
            ("[tb]rain", "brain", true),
            ("[!tb]rain", "brain", false),
            ("r[0-9]", "r7", true),
            ("r[0-9]", "rx", false),
            ("[]]", "]", true),
            ("[x", "[x", true),
            ("", "", true),
            ("", "a", false),
            ("ä*", "äther", true),
        ] {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        let pattern = "*a".repeat(200);
        let text = "a".repeat(2_000) + "b";
        assert!(!glob_matches(&pattern, &text));
    }
}
