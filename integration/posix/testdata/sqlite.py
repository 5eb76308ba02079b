"""Processes that write, read and die on one SQLite database. Prints for each case: case, name, verdict, message.

Every transaction moves an amount between two accounts and logs it, so that whoever sees half of one sees another total.
"""

import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import traceback

ACCOUNTS, EACH, WRITERS, READERS = 20, 1000, 3, 2


def connect(path):
    db = sqlite3.connect(path, timeout=300, isolation_level=None)
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA mmap_size=1048576")
    db.execute("PRAGMA wal_autocheckpoint=20")
    return db


def create(path, mode):
    db = connect(path)
    got = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    assert got == mode, f"the journal's mode is {got}"
    db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, note TEXT)")
    db.execute("CREATE TABLE log (writer INTEGER, n INTEGER, PRIMARY KEY (writer, n))")
    db.executemany("INSERT INTO account VALUES (?, ?, '')", [(i, EACH) for i in range(ACCOUNTS)])
    db.close()


def move(db, chance, writer, n):
    a, b = chance.sample(range(ACCOUNTS), 2)
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE account SET amount = amount - 7, note = ? WHERE id = ?", ("x" * chance.randrange(2000), a))
    db.execute("UPDATE account SET amount = amount + 7 WHERE id = ?", (b,))
    db.execute("INSERT INTO log VALUES (?, ?)", (writer, n))
    db.execute("COMMIT")


def write(path, writer, transactions):
    db, chance = connect(path), random.Random(writer)
    for n in range(transactions):
        move(db, chance, writer, n)
    db.close()


def read(path, done):
    db, seen = connect(path), 0
    while not done.is_set():
        db.execute("BEGIN")
        total = db.execute("SELECT sum(amount) FROM account").fetchone()[0]
        logged = db.execute("SELECT count(*) FROM log").fetchone()[0]
        again = db.execute("SELECT count(*) FROM log").fetchone()[0]
        db.execute("COMMIT")
        assert total == ACCOUNTS * EACH, f"half a transaction was seen: the total is {total}"
        assert logged == again, f"a transaction was seen to change: {logged}, {again}"
        assert logged >= seen, f"a commit was lost: {logged} after {seen}"
        seen = logged
    db.close()


def check(path, least, most):
    db = connect(path)
    result = db.execute("PRAGMA integrity_check").fetchall()
    assert result == [("ok",)], result
    assert db.execute("SELECT sum(amount) FROM account").fetchone()[0] == ACCOUNTS * EACH
    logged = db.execute("SELECT count(*) FROM log").fetchone()[0]
    assert least <= logged <= most, f"{logged} transactions, not {least} to {most}"
    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    assert busy == 0, "the checkpoint was busy"
    db.close()


def concurrent(path, mode, transactions):
    create(path, mode)
    done = multiprocessing.Event()
    writers = [multiprocessing.Process(target=write, args=(path, w, transactions)) for w in range(WRITERS)]
    readers = [multiprocessing.Process(target=read, args=(path, done)) for _ in range(READERS)]
    for p in writers + readers:
        p.start()
    for p in writers:
        p.join()
    done.set()
    for p in readers:
        p.join()
    ends = [p.exitcode for p in writers + readers]
    assert not any(ends), f"exit statuses {ends}"
    check(path, WRITERS * transactions, WRITERS * transactions)


def endless(path, writer, pipe):
    db, chance, n = connect(path), random.Random(writer), 0
    while True:
        move(db, chance, writer, n)
        n += 1
        os.write(pipe, b".")


def killed(path, mode, transactions):
    """What a killed writer has committed stays, and nothing else comes."""
    create(path, mode)
    acknowledged = 0
    rounds = max(3, transactions // 20)
    for round in range(rounds):
        get, put = os.pipe()
        p = multiprocessing.Process(target=endless, args=(path, round, put))
        p.start()
        os.close(put)
        for _ in range(random.randrange(1, 15)):
            os.read(get, 1)
            acknowledged += 1
        os.kill(p.pid, signal.SIGKILL)
        p.join()
        while more := os.read(get, 4096):
            acknowledged += len(more)
        os.close(get)
    check(path, acknowledged, acknowledged + rounds)


def main():
    transactions = int(sys.argv[1])
    for mode in "wal", "delete", "truncate", "persist":
        for test in concurrent, killed:
            name = f"{mode}-{test.__name__}"
            try:
                test(os.path.abspath(name + ".db"), mode, transactions)
                print("case", name, "pass", "", sep="\t", flush=True)
            except Exception:
                print("case", name, "fail", traceback.format_exc().replace("\n", " | ").replace("\t", " "), sep="\t", flush=True)


if __name__ == "__main__":
    main()
