"""A shell with jobs on a terminal, in which a command is run in the background and brought to the foreground.

Its arguments: what the command is run by. It prints in a line of JSON each what came of a job that was started in the background, of one that was brought
to the foreground and was typed to, of one whose words a pipeline prints, and of one that was stopped and goes on.
"""

import json
import os
import pty
import select
import shlex
import sys
import time

RUN = shlex.join(sys.argv[1:])
PATIENCE_S = 20
ASKS = "atonce "


def until(terminal, *words):
    """What the terminal shows until all of these were shown, or for a while."""
    shown, deadline = "", time.monotonic() + PATIENCE_S
    while not all(word in shown for word in words) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def told(terminal, line, word):
    """Whether the shell's next command, or what it is running, is answered so, and the shell asks for another then."""
    os.write(terminal, line.encode() + b"\n")
    shown = until(terminal, word, ASKS)
    return word in shown or shown


def begins(terminal):
    """Starts one in the background, and waits for its first words and the shell's next question."""
    os.write(terminal, f"{RUN} sh -c 'echo be''gun; read line; echo \"read <$line>\"' &\n".encode())
    until(terminal, "begun", ASKS)


shell, terminal = pty.fork()
if shell == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
os.write(terminal, b"PS1='at''once '\n")
until(terminal, ASKS)
print(json.dumps(told(terminal, f"{RUN} sh -c 'echo beg''un' > /dev/null 2>&1 & wait; echo end''ed $?", "ended 0")))
begins(terminal)
# It is looked for the foreground: what is typed until then waits.
print(json.dumps(told(terminal, "fg\ntyped", "read <typed>")))
print(json.dumps(told(terminal, f"{RUN} sh -c 'echo on''e; echo tw''o' | cat", "one\r\ntwo\r\n")))
begins(terminal)
print(json.dumps(told(terminal, "kill -STOP %1; fg\nagain", "read <again>")))
os.close(terminal)
os.waitpid(shell, 0)
