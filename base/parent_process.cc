#include "base/parent_process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace tandem {

bool DieWithParent() {
  // If the parent ended before we asked, we would never know: hence the second look. That it is
  // process 1 says nothing: in a container it may well have started us.
  const pid_t parent = getppid();
  return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

}  // namespace tandem
