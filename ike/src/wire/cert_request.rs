//! Certificate Request payload (RFC 2408 §3.10).
//!
//! ```text
//! !  Encoding     !                                               !
//! ~                             Data                              ~
//! ```

use super::chain::Body;
use super::codec::{Codec, InvalidMessage, Reader, Writer};
use super::registry::{CertificateEncoding, PayloadKind};

/// The certificate request payload (RFC 2408 §3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    pub encoding: CertificateEncoding,
    /// The DER distinguished name of an acceptable authority; empty accepts any.
    pub data: Vec<u8>,
}

impl Body for CertificateRequest {
    const KIND: PayloadKind = PayloadKind::CERTIFICATE_REQUEST;
}

impl Codec for CertificateRequest {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidMessage> {
        let encoding = CertificateEncoding(reader.u8("certificate type")?);
        Ok(Self { encoding, data: reader.rest().to_vec() })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.encoding.0);
        writer.put(&self.data);
    }
}
