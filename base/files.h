// Durable files: what "committed" means on disk. POSIX; blocking; no state, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tandem {

// Whole file; refuses files over max_bytes before reading them.
Result<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 30);
// Writes beside, fsyncs, renames over path, fsyncs the folder: readers see the old content or the
// new, never a part.
Status WriteFileDurably(const std::string& path, std::string_view content);
// Creates the folder and its parents; fine if they exist.
Status MakeFolders(const std::string& path);
// fsync of a file or folder by path.
Status SyncPath(const std::string& path);
// rename(2) followed by fsync of the parent folder of `to`.
Status RenameDurably(const std::string& from, const std::string& to);
// Names in a folder, sorted; without "." and "..".
Result<std::vector<std::string>> ListFolder(const std::string& path);
// Removes a file or a whole tree; fine if it is not there. Refuses "", "/" and relative paths.
Status RemoveTree(const std::string& path);
bool PathExists(const std::string& path);
bool IsFolder(const std::string& path);
// "a/b", "/c" -> "/c"; "a", "b" -> "a/b"; no normalising.
std::string JoinPath(const std::string& folder, const std::string& name);
// Absolute and without symbolic links where it exists; lexically normal otherwise.
std::string AbsolutePath(const std::string& path);

}  // namespace tandem
