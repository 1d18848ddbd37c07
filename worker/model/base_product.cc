#include "worker/model/base_product.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

namespace tandem {
namespace {

bool SameType(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type();
}

// x is rounded to m's type; the sum is x's.
at::Tensor NarrowProduct(const at::Tensor& x, const at::Tensor& m) {
  const at::Tensor narrow = x.to(m.scalar_type());
  if (!m.device().is_cpu()) return at::mm(narrow, m, x.scalar_type());
  // The CPU has no product that widens; widening first gives the same numbers.
  return at::mm(narrow.to(x.scalar_type()), m.to(x.scalar_type()));
}

at::Tensor Product(const at::Tensor& x, const at::Tensor& m) {
  return SameType(x, m) ? at::mm(x, m) : NarrowProduct(x, m);
}

void ProductInto(at::Tensor out, const at::Tensor& x, const at::Tensor& m) {
  if (SameType(x, m)) {
    at::mm_out(out, x, m);
  } else {
    out.copy_(NarrowProduct(x, m));
  }
}

}  // namespace

at::Tensor TimesTransposed(const at::Tensor& x, const at::Tensor& w) {
  return Product(x, w.t());
}

at::Tensor Times(const at::Tensor& x, const at::Tensor& w) {
  return Product(x, w);
}

void TimesTransposedInto(const at::Tensor& out, const at::Tensor& x, const at::Tensor& w) {
  ProductInto(out, x, w.t());
}

void TimesInto(const at::Tensor& out, const at::Tensor& x, const at::Tensor& w) {
  ProductInto(out, x, w);
}

at::Tensor AddTimesTransposed(const at::Tensor& sum, const at::Tensor& x, const at::Tensor& w) {
  if (SameType(x, w)) return at::addmm(sum, x, w.t());
  return NarrowProduct(x, w.t()).add_(sum);
}

}  // namespace tandem
