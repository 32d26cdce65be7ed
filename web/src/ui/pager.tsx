// Pages of a list that the server cuts: each has the cursor of the next one.
import { useState } from "preact/hooks";
import { count } from "../format";
import { Button } from "./parts";

export interface Pages {
  /** The cursor of the page that is shown; "" for the first. */
  readonly cursor: string;
  readonly page: number;
  readonly back: () => void;
  readonly next: (cursor: string) => void;
}

/** Begins anew with each other list; `of` names the list. */
export function usePages(of: string): Pages {
  const [trail, setTrail] = useState<{ of: string; cursors: readonly string[] }>({ of, cursors: [] });
  const cursors = trail.of === of ? trail.cursors : [];
  return {
    cursor: cursors.at(-1) ?? "",
    page: cursors.length,
    back: () => setTrail({ of, cursors: cursors.slice(0, -1) }),
    next: (cursor) => setTrail({ of, cursors: [...cursors, cursor] }),
  };
}

export function Pager(props: {
  label: string;
  pages: Pages;
  shown: number;
  pageSize: number;
  total: number | undefined;
  nextCursor: string | undefined;
}) {
  const { pages, nextCursor, total } = props;
  if (pages.page === 0 && nextCursor === undefined) return null;
  const first = pages.page * props.pageSize;
  return (
    <nav class="pager" aria-label={`Pages of ${props.label}`}>
      <span role="status">
        {props.shown === 0 ? "None here" : `${count(first + 1)}–${count(first + props.shown)}`}
        {total !== undefined && ` of ${count(total)}`}
      </span>
      <Button disabled={pages.page === 0} onPress={pages.back}>
        Back
      </Button>
      <Button disabled={nextCursor === undefined} onPress={() => nextCursor !== undefined && pages.next(nextCursor)}>
        Next
      </Button>
    </nav>
  );
}
