//! For tests: says which call a profile lacks, instead of dying without a word.

use crate::confine::ConfineError;
use crate::trial::TRAPPED;

/// The kernel's siginfo of a SIGSYS on 64-bit machines; libc has no accessor for its fields.
#[repr(C)]
struct SigsysInfo {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    call_address: *const libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}

#[expect(unsafe_code, reason = "a signal handler is installed; std and rustix offer no way")]
pub(crate) fn install() -> Result<(), ConfineError> {
    // SAFETY: all fields of sigaction may be zero; the handler has the signature SA_SIGINFO asks
    // for, and does only what is safe in a handler (no allocation, no lock; write and _exit).
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = report as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(ConfineError::Step {
            step: "install the trap's handler",
            source: std::io::Error::last_os_error(),
        })
    }
}

#[expect(unsafe_code, reason = "reads what the kernel passes to a signal handler")]
extern "C" fn report(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo of a SIGSYS, whose layout the struct has.
    let call = unsafe { (*info.cast::<SigsysInfo>()).call };
    let mut text = Line::default();
    text.push(b"sandbox: the profile lacks system call ");
    text.number(i64::from(call));
    if let Some(name) = crate::groups::name_of(call.into()) {
        // Listed somewhere, so an argument or the role was wrong.
        text.push(b" (");
        text.push(name.as_bytes());
        text.push(b")");
    }
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: with SA_SIGINFO the third argument is the interrupted ucontext.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        text.push(b", arguments");
        for register in [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX] {
            text.push(b" ");
            text.number(usize::try_from(register).map_or(0, |index| registers[index]));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = context;
    text.push(b"\n");
    // SAFETY: the pointer and length are those of a live buffer; _exit does not return.
    unsafe {
        libc::write(2, text.bytes.as_ptr().cast(), text.length);
        libc::_exit(TRAPPED);
    }
}

/// A line that is put together without allocating.
struct Line {
    bytes: [u8; 192],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { bytes: [0; 192], length: 0 }
    }
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        let end = (self.length + text.len()).min(self.bytes.len());
        let part = end - self.length;
        self.bytes[self.length..end].copy_from_slice(&text[..part]);
        self.length = end;
    }

    fn number(&mut self, number: i64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = number.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            self.push(b"-");
        }
        self.push(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_overlong_lines() {
        let mut line = Line::default();
        line.number(-420);
        line.push(b" ");
        line.number(i64::MIN);
        line.push(b" ");
        line.number(0);
        assert_eq!(&line.bytes[..line.length], b"-420 -9223372036854775808 0");
        line.push(&[b'x'; 500]);
        assert_eq!(line.length, 192);
    }
}
