-- One commit gives all its rows one modseq: who asks for changes in pages goes on inside of it. The
-- name stays, for the builds that know it.
DROP INDEX msg_modseq;
CREATE INDEX msg_modseq ON msg(mailbox_id, modseq, uid);
