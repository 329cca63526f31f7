//! Beginnings that scripts of tests share: what Python's own library does not do.

/// `bpf(command, attributes)`, as in bpf(2), `step(…)`, one instruction, and `loaded(kind, program, expected)`, a program of such (kind and
/// expected attachment as the kernel numbers them).
macro_rules! python_bpf {
    () => {
        r#"
import ctypes, os, platform, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    held = ctypes.create_string_buffer(attributes, len(attributes))
    made = libc.syscall(number, command, held, len(attributes))
    assert made >= 0, os.strerror(ctypes.get_errno())
    return made
def step(code, registers, jump, number):
    return struct.pack("<BBhI", code, registers, jump, number & 0xffffffff)
def loaded(kind, program, expected=0):
    code, licence = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
    steps = len(program) // 8
    return bpf(5, struct.pack("<IIQQ", kind, steps, ctypes.addressof(code), ctypes.addressof(licence)) + bytes(44) + struct.pack("<I", expected))
"#
    };
}

/// `listed(s)`: asks for a list of tables by TLS over a connected socket, which `ssl` wraps none of that is not plain TCP's, and gives how the
/// answer begins.
macro_rules! python_tls {
    () => {
        r#"
import socket, ssl, sys
REQUEST = b"GET /bigquery/v2/projects/demo-project/datasets/finance/tables HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nConnection: close\r\n\r\n"
def listed(s):
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    t = context.wrap_bio(came, goes, server_hostname="bigquery.googleapis.com")
    def through(step):
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                done = None
            if goes.pending:
                s.sendall(goes.read())
            if done is not None:
                return done
            part = s.recv(65536)
            came.write(part) if part else came.write_eof()
    through(lambda: t.do_handshake() or True)
    through(lambda: t.write(REQUEST))
    return through(lambda: t.read(12)).decode()
"#
    };
}
