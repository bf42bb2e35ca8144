//! "Did you mean …?"

/// The word of `among` that somebody most likely meant by `word`: equal but for case, or no further from it than
/// a third of its length (at least one edit). `None` when nothing is near, or the word is longer than any name.
pub fn suggest<'a>(word: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 128;
    let length = word.chars().count();
    if length == 0 || word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    let limit = (length / 3).max(1);
    among
        .filter(|known| known.len() <= LONGEST && *known != word)
        .map(|known| (strsim::osa_distance(&lower, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["delta", "sleep_time", "model_name"];
        for (word, expected) in [
            ("delat", Some("delta")),
            ("Delta", Some("delta")),
            ("sleeptime", Some("sleep_time")),
            ("modelname", Some("model_name")),
            ("learning_rate", None),
            ("", None),
        ] {
            assert_eq!(suggest(word, known.into_iter()), expected, "{word}");
        }
    }
}
