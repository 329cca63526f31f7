//! Whether an approval is signed by a key that may: OpenSSH signatures (`ssh-keygen -Y sign`), also of keys in hardware (FIDO). It reads no
//! file and runs no program: the keys are the policy's.

use enforcer_proto::policy::{Policy, Signer};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::signed::NAMESPACE;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey, SshSig};

/// The bit of a hardware key's signature that says that somebody touched it (FIDO2, "user presence").
const USER_PRESENT: u8 = 1;
/// What stands behind such a signature: the flags, and a counter of four bytes.
const FLAGS_FROM_END: usize = 5;

/// A key as a policy writes it: one line as in `authorized_keys`. Gives it as it is compared, and its fingerprint.
///
/// # Errors
/// What is wrong with it.
pub fn key(line: &str) -> Result<(String, String), String> {
    let key = PublicKey::from_openssh(line)
        .map_err(|error| format!("the key of a signer cannot be read: {error}"))?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {}
        KeyData::Ecdsa(key) if key.curve() == ssh_key::EcdsaCurve::NistP256 => {}
        KeyData::Ecdsa(_) | KeyData::Dsa(_) | KeyData::Rsa(_) | KeyData::Other(_) | _ => {
            return Err(format!(
                "the key of a signer is of the kind {}: use ssh-ed25519, ecdsa-sha2-nistp256, or one of both in hardware (sk-…)",
                key.algorithm()
            ));
        }
    }
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    let plain = PublicKey::from(key.key_data().clone());
    let text = plain.to_openssh().map_err(|error| error.to_string())?;
    Ok((text, fingerprint))
}

/// The name of the key that signed `statement` for the person with this uid.
///
/// # Errors
/// [`Code::SignatureNeeded`]: unreadable, of another key, of another text, or without a touch where the key is in hardware.
pub fn signer(
    policy: &Policy,
    uid: u32,
    statement: &str,
    armored: &str,
) -> Result<String, Refusal> {
    let refused = |why: &str| Refusal::new(Code::SignatureNeeded, why);
    let signature = SshSig::from_pem(armored)
        .map_err(|error| refused(&format!("The signature cannot be read: {error}")))?;
    let own = policy.signers.iter().filter(|signer| signer.uid == uid);
    let signer = own
        .filter_map(|signer| Some((signer, PublicKey::from_openssh(&signer.key).ok()?)))
        .find(|(_, key)| key.key_data() == signature.public_key());
    let Some((Signer { fingerprint, .. }, key)) = signer else {
        return Err(refused(&format!(
            "The signature is of a key that may not sign for uid {uid}"
        )));
    };
    key.verify(NAMESPACE, statement.as_bytes(), &signature)
        .map_err(|_| refused("The signature is not over what is being approved"))?;
    if is_in_hardware(key.key_data()) && !is_touched(&signature) {
        return Err(refused("The signature was made without a touch of the key"));
    }
    Ok(fingerprint.clone())
}

const fn is_in_hardware(key: &KeyData) -> bool {
    matches!(key, KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_))
}

fn is_touched(signature: &SshSig) -> bool {
    let bytes = signature.signature_bytes();
    let flags = bytes.len().checked_sub(FLAGS_FROM_END);
    flags
        .and_then(|at| bytes.get(at))
        .is_some_and(|flags| flags & USER_PRESENT != 0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    const TEXT: &str = "enforcer approval, version 1\n";

    /// Runs the system's own `ssh-keygen`.
    fn ssh_keygen(args: &[&str], input: &str) -> String {
        use std::io::Write;
        let mut child = Command::new("ssh-keygen")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("ssh-keygen is there");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("writes");
        drop(stdin);
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "ssh-keygen {args:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn made(dir: &Path, name: &str, kind: &str) -> (String, String) {
        let path = dir.join(name).display().to_string();
        ssh_keygen(&["-q", "-t", kind, "-N", "", "-f", &path], "");
        let public = std::fs::read_to_string(format!("{path}.pub")).expect("reads");
        (path, public)
    }

    fn policy(signers: &[(u32, &str)]) -> Policy {
        let signers = signers.iter().map(|(uid, line)| {
            let (key, fingerprint) = key(line).expect("a key");
            Signer {
                uid: *uid,
                key,
                fingerprint,
            }
        });
        Policy {
            rules: Vec::new(),
            signers: signers.collect(),
            own_uids: Default::default(),
            digest: String::new(),
        }
    }

    fn refused(outcome: Result<String, Refusal>, why: &str) {
        let refusal = outcome.expect_err("is refused");
        assert!(refusal.what.contains(why), "{refusal}");
        assert_eq!(refusal.code, Code::SignatureNeeded);
    }

    #[test]
    fn what_ssh_keygen_signs_counts_for_its_own_person_text_and_namespace_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        for kind in ["ed25519", "ecdsa"] {
            let (path, public) = made(dir.path(), kind, kind);
            let (_, other) = made(dir.path(), &format!("{kind}-other"), kind);
            let sign =
                |namespace, text| ssh_keygen(&["-Y", "sign", "-n", namespace, "-f", &path], text);
            let rules = policy(&[(5001, &public), (5002, &other)]);
            let good = sign(NAMESPACE, TEXT);
            let by = signer(&rules, 5001, TEXT, &good).expect("signed");
            assert!(by.starts_with("SHA256:"), "{by}");
            refused(
                signer(&rules, 5002, TEXT, &good),
                "may not sign for uid 5002",
            );
            refused(
                signer(&rules, 5001, "ttl 12h", &good),
                "not over what is being approved",
            );
            refused(
                signer(&rules, 5001, TEXT, &sign("file", TEXT)),
                "not over what is being approved",
            );
            refused(signer(&rules, 5001, TEXT, "no signature"), "cannot be read");
            refused(signer(&policy(&[]), 5001, TEXT, &good), "may not sign");
        }
    }

    #[test]
    fn a_key_of_a_kind_that_is_not_checked_is_refused_when_the_policy_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let (_, public) = made(dir.path(), "rsa", "rsa");
        assert!(
            key(&public)
                .expect_err("is refused")
                .contains("ssh-ed25519")
        );
        assert!(key("ssh-ed25519 AAAA").is_err());
    }

    /// A signature as a FIDO key makes it (OpenSSH, PROTOCOL.u2f): over the hash of the application, the flags, the counter and the hash of what
    /// is signed.
    fn of_hardware(flags: u8) -> (String, String) {
        use ed25519_dalek::{Signer as _, SigningKey};
        use ssh_key::public::SkEd25519;
        use ssh_key::sha2::{Digest, Sha256};
        let secret = SigningKey::from_bytes(&[7; 32]);
        let public = ssh_key::public::Ed25519PublicKey(secret.verifying_key().to_bytes());
        let key = PublicKey::from(KeyData::SkEd25519(SkEd25519::new(public, "ssh:")));
        let blob =
            SshSig::signed_data(NAMESPACE, HashAlg::Sha512, TEXT.as_bytes()).expect("a blob");
        let mut signed = Sha256::digest(b"ssh:").to_vec();
        signed.push(flags);
        signed.extend(9_u32.to_be_bytes());
        signed.extend(Sha256::digest(&blob));
        let mut bytes = secret.sign(&signed).to_bytes().to_vec();
        bytes.push(flags);
        bytes.extend(9_u32.to_be_bytes());
        let raw =
            ssh_key::Signature::new(ssh_key::Algorithm::SkEd25519, bytes).expect("a signature");
        let signature = SshSig::new(key.key_data().clone(), NAMESPACE, HashAlg::Sha512, raw)
            .expect("a signature");
        let armored = signature.to_pem(ssh_key::LineEnding::LF).expect("text");
        (key.to_openssh().expect("text"), armored)
    }

    #[test]
    fn a_key_in_hardware_counts_only_when_it_was_touched() {
        let (public, armored) = of_hardware(USER_PRESENT);
        let rules = policy(&[(5001, &public)]);
        assert!(signer(&rules, 5001, TEXT, &armored).is_ok());
        let (_, untouched) = of_hardware(0);
        refused(signer(&rules, 5001, TEXT, &untouched), "without a touch");
    }
}
