//! A site's built-in checkers and the supervised review of a plan.
