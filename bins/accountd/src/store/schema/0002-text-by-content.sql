-- by_content = 1: the text is compressed with the plain content as its model, which reading it needs.
ALTER TABLE content_text ADD COLUMN by_content INTEGER NOT NULL DEFAULT 0;
