// What is remembered: looks and the watch list in this browser, the token in this tab and no longer.

function kept(storage) {
  return {
    get(key) { try { return storage().getItem(`monitord.${key}`); } catch { return null; } },
    set(key, value) {
      try { value === null ? storage().removeItem(`monitord.${key}`) : storage().setItem(`monitord.${key}`, value); } catch { /* private mode */ }
    },
  };
}

export const browser = kept(() => localStorage);
export const tab = kept(() => sessionStorage);
