// PeakMemory: the largest resident set of this process, of a stage and of its whole life.
//
// Linux keeps one high-water mark per process (VmHWM); writing 5 to /proc/self/clear_refs starts it
// anew, so that a stage's peak is not hidden behind that of loading the model. Where that is
// refused, a stage's peak is the process's so far. Confined to the training thread.
#pragma once

namespace tandem {

class PeakMemory {
 public:
  // From here on OfStage() speaks of what comes.
  void StartStage();
  double OfStage() const;    // bytes
  double OfProcess() const;  // bytes, since its start

 private:
  double earlier_ = 0;
};

// Bytes resident now.
double ResidentBytes();

}  // namespace tandem
