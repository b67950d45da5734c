//! Numbers of things, as sentences have them.

/// `1 group`, `2 groups`.
pub fn count(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let counts = [0, 1, 2].map(|number| count(number, "member"));
        assert_eq!(counts, ["0 members", "1 member", "2 members"]);
    }
}
