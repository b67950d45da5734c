//! Certificate payload (RFC 2408 §3.9).
//!
//! ```text
//! !  Encoding     !                                               !
//! ~                             Data                              ~
//! ```

use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::{CertificateEncoding, PayloadKind};

/// A certificate in one of the registered encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub encoding: CertificateEncoding,
    pub data: Vec<u8>,
}

impl Body for Certificate {
    const KIND: PayloadKind = PayloadKind::CERTIFICATE;
}

impl Codec for Certificate {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let encoding = CertificateEncoding(reader.u8("certificate encoding")?);
        Ok(Self { encoding, data: reader.rest().to_vec() })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.put(&self.data);
    }
}
