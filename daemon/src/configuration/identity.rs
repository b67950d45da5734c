//! Phase-1 identities: `{ address = "10.0.1.1" }`, `{ fqdn = "gm.example" }`,
//! `{ user-fqdn = "gm@example" }`, `{ key-id = "text" }`, `{ dn = "CN=gm,O=Example" }`.

use std::net::IpAddr;

use ike::config::Identity;
use toml::de::DeValue;

use super::table::kind;
use super::value::{Problem, Read, text_toml};

/// Longest name in octets; RFC 1035 §2.3.4 allows no longer domain name.
const LONGEST: usize = 255;

impl Read for Identity {
    const EXAMPLE: &'static str = "{ address = \"192.0.2.1\" }";
    const TYPE: &'static str = "identity";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        const REMEDY: &str = "write one of { address = \"..\" }, { fqdn = \"..\" }, { user-fqdn = \"..\" }, { key-id = \"..\" }, { dn = \"..\" }";
        let DeValue::Table(entries) = value else {
            return Err(Problem::new(format!("{} is not an identity", kind(value)), REMEDY));
        };
        let mut entries = entries.iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else {
            return Err(Problem::new("an identity has exactly one kind", REMEDY));
        };
        let name = || {
            let name = String::read(value.get_ref())?;
            if name.len() > LONGEST {
                return Err(Problem::new(
                    format!("an identity of {} octets", name.len()),
                    format!("write at most {LONGEST}"),
                ));
            }
            Ok(name)
        };
        match key.get_ref().as_ref() {
            "address" => Ok(Self::Address(IpAddr::read(value.get_ref())?)),
            "fqdn" => Ok(Self::Fqdn(name()?)),
            "user-fqdn" => {
                let name = name()?;
                if !name.contains('@') {
                    return Err(Problem::new(
                        format!("\"{name}\" is no user FQDN"),
                        "write it as \"user@host.example\"",
                    ));
                }
                Ok(Self::UserFqdn(name))
            }
            "key-id" => Ok(Self::KeyId(name()?.into_bytes())),
            "dn" => {
                let name = name()?;
                let der = ike::certificate::name_from_text(&name).ok_or_else(|| {
                    Problem::new(
                        format!("\"{name}\" is no distinguished name"),
                        "write it as \"CN=host,O=Example\", as `openssl x509 -noout -subject \
                         -nameopt RFC2253` prints it",
                    )
                })?;
                Ok(Self::DistinguishedName(der))
            }
            other => Err(Problem::new(format!("\"{other}\" is no kind of identity"), REMEDY)),
        }
    }

    fn toml(&self) -> String {
        let (kind, name) = match self {
            Self::Address(address) => ("address", address.to_string()),
            Self::Fqdn(name) => ("fqdn", name.clone()),
            Self::UserFqdn(name) => ("user-fqdn", name.clone()),
            Self::DistinguishedName(name) => ("dn", ike::certificate::name_text(name)),
            Self::KeyId(octets) => ("key-id", String::from_utf8_lossy(octets).into_owned()),
        };
        format!("{{ {kind} = {} }}", text_toml(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Identity, String> {
        let text = format!("x = {text}");
        let table = toml::de::DeTable::parse(&text).unwrap();
        Identity::read(table.get_ref().get("x").unwrap().get_ref())
            .map_err(|problem| problem.message)
    }

    #[test]
    fn all_kinds() {
        assert_eq!(
            read("{ address = \"192.0.2.1\" }"),
            Ok(Identity::Address("192.0.2.1".parse().unwrap()))
        );
        assert_eq!(
            read("{ fqdn = \"gm.example\" }"),
            Ok(Identity::Fqdn(String::from("gm.example")))
        );
        assert_eq!(
            read("{ user-fqdn = \"a@gm.example\" }"),
            Ok(Identity::UserFqdn(String::from("a@gm.example")))
        );
        assert_eq!(read("{ key-id = \"abc\" }"), Ok(Identity::KeyId(b"abc".to_vec())));
    }

    #[test]
    fn what_is_not_one() {
        assert_eq!(read("\"192.0.2.1\"").unwrap_err(), "a text is not an identity");
        assert_eq!(read("{}").unwrap_err(), "an identity has exactly one kind");
        assert_eq!(
            read("{ fqdn = \"a\", key-id = \"b\" }").unwrap_err(),
            "an identity has exactly one kind"
        );
        assert_eq!(read("{ name = \"a\" }").unwrap_err(), "\"name\" is no kind of identity");
        assert_eq!(read("{ user-fqdn = \"a\" }").unwrap_err(), "\"a\" is no user FQDN");
        assert_eq!(read("{ address = \"a\" }").unwrap_err(), "\"a\" is not an address");
        assert_eq!(
            read(&format!("{{ fqdn = \"{}\" }}", "a".repeat(256))).unwrap_err(),
            "an identity of 256 octets"
        );
    }
}
