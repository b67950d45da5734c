//! What the lab says: numbered statements with their evidence, and the promises of `SECURITY.md`.

pub mod narrative;
pub mod statements;
pub mod table;

/// Values for people, `none` if there are none.
pub fn listed<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    if texts.is_empty() { String::from("none") } else { texts.join(", ") }
}
