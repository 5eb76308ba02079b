"""Several processes write one SQLite database in WAL mode, in the directory argv[1]."""
import multiprocessing
import os
import sqlite3
import sys

WRITERS, ROWS = 4, 50


def connect(path):
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute("pragma busy_timeout=60000")
    return db


def write(path, who):
    db = connect(path)
    for i in range(ROWS):
        db.execute("begin immediate")
        (n,) = db.execute("select count(*) from t").fetchone()
        db.execute("insert into t values (?, ?, ?)", (who, i, n))
        db.execute("commit")
    db.close()


def main():
    path = os.path.join(sys.argv[1], "cache.sqlite")
    db = connect(path)
    assert db.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    db.execute("create table t (who, i, n unique)")
    writers = [multiprocessing.Process(target=write, args=(path, w)) for w in range(WRITERS)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
        assert w.exitcode == 0
    assert db.execute("select count(*) from t").fetchone() == (WRITERS * ROWS,)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()


if __name__ == "__main__":
    main()
