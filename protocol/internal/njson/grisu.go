package njson

import (
	"math"
	"math/big"
	"math/bits"
)

// shortest gives digits and a power of ten for a positive number. It is
// Loitsch's Grisu2 ("Printing Floating-Point Numbers Quickly and Accurately
// with Integers", 2010), which upstream's library uses: what it gives always
// reads back as the same number, but in about one case of a thousand it is not
// the shortest or nearest such text, so that strconv would differ.
func shortest(f float64) (digits []byte, exp int) {
	low, v, high := boundaries(f)
	scale, k := cachedPower(high.exp)
	w := v.times(scale)
	m := interval{low: low.times(scale).frac + 1, high: high.times(scale).frac - 1, exp: w.exp}
	digits, exp = m.digits(w.frac)
	return digits, exp - k
}

// diyFloat is frac * 2^exp.
type diyFloat struct {
	frac uint64
	exp  int
}

func (x diyFloat) normalised() diyFloat {
	shift := bits.LeadingZeros64(x.frac)
	return diyFloat{x.frac << shift, x.exp - shift}
}

// times gives the upper half of the product, rounded.
func (x diyFloat) times(y diyFloat) diyFloat {
	hi, lo := bits.Mul64(x.frac, y.frac)
	return diyFloat{hi + lo>>63, x.exp + y.exp + 64}
}

// boundaries gives f between the ends of the interval of numbers that are
// nearer to f than to its neighbours, all with one exponent.
func boundaries(f float64) (low, v, high diyFloat) {
	const fracBits, bias = 52, 1075
	raw := math.Float64bits(f)
	frac, exp := raw&(1<<fracBits-1), int(raw>>fracBits)
	v = diyFloat{frac, 1 - bias}
	if exp > 0 {
		v = diyFloat{frac | 1<<fracBits, exp - bias}
	}
	high = diyFloat{2*v.frac + 1, v.exp - 1}.normalised()
	low = diyFloat{2*v.frac - 1, v.exp - 1}
	if frac == 0 && exp > 1 {
		// Below a power of two numbers lie twice as close.
		low = diyFloat{4*v.frac - 1, v.exp - 2}
	}
	low = diyFloat{low.frac << (low.exp - high.exp), high.exp}
	return low, v.normalised(), high
}

// Products with cached powers have exponents from -60 to -32.
const minProductExp = -60

// cachedPower gives a power of ten, 10^k, whose product with a number of that
// exponent is in range. Only every eighth power is used.
func cachedPower(exp int) (diyFloat, int) {
	const first, step = -300, 8
	f := minProductExp - exp - 1
	k := f * 78913 / (1 << 18)
	if f > 0 {
		k++
	}
	k = first + (k-first+step-1)/step*step
	return powerOfTen(k), k
}

// powerOfTen is 10^k with 64 significant bits, rounded to nearest.
func powerOfTen(k int) diyFloat {
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(k, -k))), nil)
	x := new(big.Float).SetPrec(64).SetMode(big.ToNearestEven)
	if k < 0 {
		x.Quo(big.NewFloat(1), new(big.Float).SetInt(power))
	} else {
		x.SetInt(power)
	}
	mantissa := new(big.Float)
	exp := x.MantExp(mantissa)
	frac, _ := mantissa.SetMantExp(mantissa, 64).Uint64()
	return diyFloat{frac, exp - 64}
}

// interval is between low and high times 2^exp.
type interval struct {
	low, high uint64
	exp       int
}

// digits generates the digits of high until what is left fits the interval,
// then moves the last one towards w.
func (m interval) digits(w uint64) (buf []byte, exp int) {
	delta, dist := m.high-m.low, m.high-w
	shift := uint(-m.exp)
	one := uint64(1) << shift
	whole, frac := m.high>>shift, m.high&(one-1)
	n, pow10 := 1, uint64(1)
	for ; whole/pow10 >= 10; n++ {
		pow10 *= 10
	}
	for ; n > 0; pow10 /= 10 {
		buf = append(buf, '0'+byte(whole/pow10))
		whole %= pow10
		n--
		if rest := whole<<shift + frac; rest <= delta {
			return roundLast(buf, dist, delta, rest, pow10<<shift), n
		}
	}
	for {
		frac *= 10
		buf = append(buf, '0'+byte(frac>>shift))
		frac &= one - 1
		exp--
		delta *= 10
		dist *= 10
		if frac <= delta {
			return roundLast(buf, dist, delta, frac, one), exp
		}
	}
}

// roundLast lowers the last digit, worth unit, while that comes nearer.
func roundLast(buf []byte, dist, delta, rest, unit uint64) []byte {
	for rest < dist && delta-rest >= unit && (rest+unit < dist || dist-rest > rest+unit-dist) {
		buf[len(buf)-1]--
		rest += unit
	}
	return buf
}
