// How `tandem` leaves. Scripts rely on these; they never change.
#pragma once

namespace tandem::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;  // wrong command line, invalid spec
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitJobFailed = 4;  // the job failed or was cancelled
inline constexpr int kExitUnreachable = 5;
inline constexpr int kExitBelowVerdict = 6;   // succeeded, but below --require-verdict
inline constexpr int kExitInterrupted = 130;  // Ctrl-C: detached, or checkpointed and stopped

}  // namespace tandem::cli
