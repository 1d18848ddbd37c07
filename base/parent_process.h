// ParentProcess: what a program does that must not outlive the one that started it.
#pragma once

namespace tandem {

// The kernel kills this process when the thread that started it ends. False: it has ended already,
// or the kernel cannot. Call first in main, once.
bool DieWithParent();

}  // namespace tandem
