//! Keys in a token: found by label and class, looked at before they are used, and made so that they cannot get out.

use aws_lc_rs::rand;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::HsmError;
use crate::token::signer::{PublicKey, Signature};

/// The DER of prime256v1's object identifier (RFC 5480 §2.1.1.1): CKA_EC_PARAMS of P-256.
pub(super) const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// What stands before a point of P-256 in CKA_EC_POINT: an octet string of 65 bytes. Some modules leave it out.
const OCTETS_65: &[u8] = &[0x04, 0x41];
/// The length of a CKA_ID that is made here: chance enough to be alone.
const ID_BYTES: usize = 16;

/// What the keys are called.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub(super) signing: String,
    pub(super) next: String,
    pub(super) last: String,
}

impl Labels {
    pub(super) fn of(key: &str) -> Self {
        Self {
            signing: key.to_owned(),
            next: format!("{key}-next"),
            last: format!("{key}-last"),
        }
    }
}

/// A key that is in order.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) private: ObjectHandle,
    pub(super) public_object: ObjectHandle,
    pub(super) public: PublicKey,
    /// Whether it was made elsewhere, or could be read at some time.
    pub(super) was_outside: bool,
}

/// The keys that there are: a private key's label is the one thing that says what it is for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) signing: Option<Found>,
    pub(super) next: Option<Found>,
    pub(super) last: Option<Found>,
}

impl Held {
    pub(super) fn look(session: &Session, labels: &Labels) -> Result<Self, HsmError> {
        let mut signing = find(session, &labels.signing)?;
        let next = find(session, &labels.next)?;
        let last = find(session, &labels.last)?;
        if signing.is_none() && next.is_none() {
            // It may have got its label after the first look.
            signing = find(session, &labels.signing)?;
        }
        Ok(Self {
            signing,
            next,
            last,
        })
    }

    /// The one that signs. Between the two halves of a switch no key has the label of the signing one: then it is the next one's turn already.
    pub(super) const fn signs(&self) -> Option<&Found> {
        match (&self.signing, &self.next, &self.last) {
            (Some(key), _, _) | (None, Some(key), Some(_)) => Some(key),
            (None, None, _) | (None, Some(_), None) => None,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.signing.is_none() && self.next.is_none() && self.last.is_none()
    }
}

/// The public half of the key that signs.
pub(super) fn signing(session: &Session, labels: &Labels) -> Result<PublicKey, HsmError> {
    if let Some(key) = find(session, &labels.signing)? {
        return Ok(key.public);
    }
    let held = Held::look(session, labels)?;
    if let Some(key) = held.signs() {
        return Ok(key.public.clone());
    }
    let label = labels.signing.clone();
    Err(if held.is_empty() {
        HsmError::NoKey { label }
    } else {
        HsmError::Torn { label }
    })
}

/// Signs a digest with the key of that public half, whatever it is called by now.
pub(super) fn sign(
    session: &Session,
    labels: &Labels,
    public: &PublicKey,
    digest: &[u8],
) -> Result<Signature, HsmError> {
    for label in [&labels.signing, &labels.last, &labels.next] {
        if let Some(key) = find(session, label)?
            && key.public == *public
        {
            let signature = session.sign(&Mechanism::Ecdsa, key.private, digest);
            let signature = signature.map_err(HsmError::said("sign"))?;
            return signature.try_into().map_err(|_| HsmError::BadSignature);
        }
    }
    let label = public.kid().to_owned();
    Err(HsmError::NoKey { label })
}

/// The key of a label, where it is one that may be used.
pub(super) fn find(session: &Session, label: &str) -> Result<Option<Found>, HsmError> {
    let by = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let Some(private) = only(session, &by, label, "private")? else {
        return Ok(None);
    };
    let (id, was_outside) = checked(session, private, label)?;
    let by = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Token(true),
        id.unwrap_or_else(|| Attribute::Label(label.as_bytes().to_vec())),
    ];
    let public_object = only(session, &by, label, "public")?;
    let public_object = public_object.ok_or_else(|| HsmError::NoPublic {
        label: label.to_owned(),
    })?;
    Ok(Some(Found {
        private,
        public_object,
        public: public_half(session, public_object, label)?,
        was_outside,
    }))
}

/// Has the token make a key. It can do nothing but sign, and never leaves.
pub(super) fn generate(session: &Session, label: &str) -> Result<(), HsmError> {
    let mut id = vec![0; ID_BYTES];
    rand::fill(&mut id).map_err(|_| HsmError::BrokeOff)?;
    let named = [
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id),
    ];
    let public = [
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
    ];
    let private = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Derive(false),
        Attribute::Unwrap(false),
    ];
    session
        .generate_key_pair(
            &Mechanism::EccKeyPairGen,
            &[&named[..], &public[..]].concat(),
            &[&named[..], &private[..]].concat(),
        )
        .map(drop)
        .map_err(HsmError::said("make a key on P-256"))
}

/// Gives a key another label. Its private half's is what counts, and is given last.
pub(super) fn rename(session: &Session, key: &Found, label: &str) -> Result<(), HsmError> {
    let label = [Attribute::Label(label.as_bytes().to_vec())];
    for object in [key.public_object, key.private] {
        session
            .update_attributes(object, &label)
            .map_err(HsmError::said(
                "give a key another label (where it never can: make a key by its own tool, give Google both, and name that one in `token.signer.key`)",
            ))?;
    }
    Ok(())
}

/// Destroys a key; its public half goes last, so that what was cut off leaves nothing that signs.
pub(super) fn destroy(session: &Session, key: &Found) -> Result<(), HsmError> {
    for object in [key.private, key.public_object] {
        session
            .destroy_object(object)
            .map_err(HsmError::said("destroy a key"))?;
    }
    Ok(())
}

/// The one object of these attributes.
fn only(
    session: &Session,
    by: &[Attribute],
    label: &str,
    kind: &'static str,
) -> Result<Option<ObjectHandle>, HsmError> {
    let objects = session.find_objects(by);
    let objects = objects.map_err(HsmError::said("look for a key"))?;
    match objects.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => Err(HsmError::ManyKeys {
            label: label.to_owned(),
            kind,
            count: several.len(),
        }),
    }
}

/// The id of a private key that may sign and cannot get out, where it has one, and whether it was ever outside. What a module does not say counts as
/// what it must not be.
fn checked(
    session: &Session,
    key: ObjectHandle,
    label: &str,
) -> Result<(Option<Attribute>, bool), HsmError> {
    let attributes = session.get_attributes(
        key,
        &[
            AttributeType::KeyType,
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::AlwaysSensitive,
            AttributeType::Sign,
            AttributeType::AlwaysAuthenticate,
            AttributeType::Id,
        ],
    );
    let attributes = attributes.map_err(HsmError::said("look at a key"))?;
    let is = |attribute| attributes.contains(&attribute);
    let label = label.to_owned();
    if !is(Attribute::Sensitive(true)) {
        let why = "it is not CKA_SENSITIVE";
        return Err(HsmError::Exportable { label, why });
    }
    if !is(Attribute::Extractable(false)) {
        let why = "it is CKA_EXTRACTABLE";
        return Err(HsmError::Exportable { label, why });
    }
    if !is(Attribute::KeyType(KeyType::EC)) {
        let why = "is no key of elliptic curves";
        return Err(HsmError::WrongKind { label, why });
    }
    if !is(Attribute::Sign(true)) {
        let why = "may not sign";
        return Err(HsmError::WrongKind { label, why });
    }
    if is(Attribute::AlwaysAuthenticate(true)) {
        let why = "asks for the PIN at each signature (CKA_ALWAYS_AUTHENTICATE)";
        return Err(HsmError::WrongKind { label, why });
    }
    let was_inside = is(Attribute::NeverExtractable(true)) && is(Attribute::AlwaysSensitive(true));
    let mut ids = attributes.into_iter();
    let id = ids.find(|attribute| matches!(attribute, Attribute::Id(id) if !id.is_empty()));
    Ok((id, !was_inside))
}

fn public_half(session: &Session, key: ObjectHandle, label: &str) -> Result<PublicKey, HsmError> {
    let attributes =
        session.get_attributes(key, &[AttributeType::EcParams, AttributeType::EcPoint]);
    let attributes = attributes.map_err(HsmError::said("look at a public key"))?;
    let wrong = |why| HsmError::WrongKind {
        label: label.to_owned(),
        why,
    };
    if !attributes.contains(&Attribute::EcParams(P256.to_vec())) {
        return Err(wrong("is not on P-256"));
    }
    let points = attributes.iter().filter_map(|attribute| {
        if let Attribute::EcPoint(point) = attribute {
            Some(point.strip_prefix(OCTETS_65).unwrap_or(point))
        } else {
            None
        }
    });
    let mut keys = points.filter_map(PublicKey::of_point);
    keys.next()
        .ok_or_else(|| wrong("has a public half that is no point of P-256"))
}
